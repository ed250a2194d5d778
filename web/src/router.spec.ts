import { expect, test } from 'vitest'
import { router } from './router'

test('unknown addresses match the not found page', () => {
  expect(router.resolve('/nope').name).toBe('notFound')
  expect(router.resolve('/settings/nope').name).toBe('notFound')
})

test('the access denied page keeps the address', () => {
  const page = router.resolve({ name: 'forbidden', params: { path: ['settings', 'users'] } })
  expect(page.name).toBe('forbidden')
  expect(page.path).toBe('/settings/users')
})
