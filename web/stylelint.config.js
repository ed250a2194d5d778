export default {
  extends: ['stylelint-config-standard'],
  overrides: [{ files: ['**/*.vue'], customSyntax: 'postcss-html' }],
  rules: {
    'color-hex-length': 'long',
    'comment-empty-line-before': null,
    'custom-property-empty-line-before': null,
    'no-descending-specificity': null,
    // `--font` and `--mono` hold font names; their case is significant.
    'value-keyword-case': ['lower', { ignoreProperties: [/^--(font|mono)$/] }],
    // Styles of Vue components reach into the slots of their children.
    'selector-pseudo-class-no-unknown': [true, { ignorePseudoClasses: ['deep'] }],
    'property-no-vendor-prefix': [true, { ignoreProperties: ['text-size-adjust', '-webkit-text-size-adjust'] }],
  },
}
