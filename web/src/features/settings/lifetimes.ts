// Lifetimes in days of what gives access: API tokens and links of status pages.
import { t } from '../../i18n'

export const LIFETIMES = [
  { value: '7', label: t('common.time.oneWeek') },
  { value: '30', label: t('common.time.thirtyDays') },
  { value: '90', label: t('common.time.ninetyDays') },
  { value: '365', label: t('common.time.oneYear') },
]
