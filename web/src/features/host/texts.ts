// Adds the texts of the host page to the catalog.
import { addTexts } from '../../i18n'
import { host } from '../../locales/en/lazy/host'

addTexts({ host })
