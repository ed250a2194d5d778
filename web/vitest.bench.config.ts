import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['tests/bench/**/*.bench.ts'],
    environment: 'node',
    // Benchmarks that run at the same time would measure each other.
    fileParallelism: false,
    // The results are the output of the program.
    disableConsoleIntercept: true,
    testTimeout: 3_600_000,
    hookTimeout: 1_200_000,
  },
})
