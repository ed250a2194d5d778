// Choices of the appearance, for the menu of the account and for the settings.
import { Monitor, Moon, Sun } from '@lucide/vue'
import { t } from '../../i18n'

export const THEMES = [
  { value: 'system', label: t('common.theme.system'), icon: Monitor },
  { value: 'light', label: t('common.theme.light'), icon: Sun },
  { value: 'dark', label: t('common.theme.dark'), icon: Moon },
] as const
export const DENSITIES = [
  { value: 'comfortable', label: t('shell.density.comfortable') },
  { value: 'compact', label: t('shell.density.compact') },
] as const
export const PATTERNS = [
  { value: 'off', label: t('shell.patterns.off') },
  { value: 'on', label: t('shell.patterns.on') },
] as const
