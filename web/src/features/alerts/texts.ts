// Texts of the alert pages, which are not part of the first load.
import { addTexts } from '../../i18n'
import { alerts } from '../../locales/en/lazy/alerts'

addTexts({ alerts })
