// Text of a file that could not be opened.
import { CapsuleError } from '../../capsule/errors'
import { t } from '../../i18n'
import './texts'

/** Reason for which a capsule could not be opened. */
export function errorReason(error: unknown): string {
  if (!(error instanceof CapsuleError)) return t('capsules.errors.unreadable')
  switch (error.code) {
    case 'unsupported':
      return t('capsules.errors.unsupported', { detail: error.detail })
    case 'invalid':
      return t('capsules.errors.invalid', { detail: error.detail })
    default:
      return t(`capsules.errors.${error.code}`)
  }
}
