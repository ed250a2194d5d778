// Adds the texts of the settings of status pages to the catalog.
import { addTexts } from '../../i18n'
import { statusPages } from '../../locales/en/lazy/statusPages'

addTexts({ statusPages })
