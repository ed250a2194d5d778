import { defineConfigWithVueTs, vueTsConfigs } from '@vue/eslint-config-typescript'
import prettier from 'eslint-config-prettier/flat'
import vue from 'eslint-plugin-vue'
import accessibility from 'eslint-plugin-vuejs-accessibility'

const DATE_METHODS = '(get|set)(Date|Day|FullYear|Hours|Minutes|Month|Seconds|TimezoneOffset)|toDateString'
const BROWSER_ZONE = [
  {
    selector: "NewExpression[callee.object.name='Intl'][callee.property.name='DateTimeFormat']",
    message: 'Use dateFormat of lib/format.',
  },
  { selector: `CallExpression[callee.property.name=/^(${DATE_METHODS})$/]`, message: 'Use lib/zone.' },
]

export default defineConfigWithVueTs(
  { ignores: ['dist/', 'test-results/', 'src/api/schema.ts'] },
  vue.configs['flat/recommended'],
  vueTsConfigs.recommended,
  accessibility.configs['flat/recommended'],
  prettier,
  {
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'max-len': ['error', { code: 140, ignoreUrls: true }],
      'max-lines': ['error', 500],
      'no-console': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', ignoreRestSiblings: true }],
      'vue/component-api-style': ['error', ['script-setup']],
      'vue/define-macros-order': 'error',
      'vue/no-unused-refs': 'error',
      'vue/no-useless-v-bind': 'error',
      'vue/prefer-true-attribute-shorthand': 'error',
      // Optional props are `undefined` when absent; the types already express that.
      'vue/require-default-prop': 'off',
      // `BaseField` renders the label of the control in its slot.
      'vuejs-accessibility/form-control-has-label': ['error', { labelComponents: ['BaseField'] }],
      // A label may wrap its control or refer to it; both at once is redundant.
      'vuejs-accessibility/label-has-for': ['error', { required: { some: ['nesting', 'id'] } }],
    },
  },
  {
    // Dates are shown and typed in the zone of the page (lib/zone.ts); these use that of the browser.
    files: ['src/**'],
    ignores: ['src/lib/{format,zone}.ts', 'src/status/**', '**/*.spec.ts'],
    rules: { 'no-restricted-syntax': ['error', ...BROWSER_ZONE] },
  },
  {
    // Fakes of browser APIs need loose types.
    files: ['**/*.spec.ts', 'tests/**'],
    rules: { '@typescript-eslint/no-explicit-any': 'off', 'no-console': 'off' },
  },
)
