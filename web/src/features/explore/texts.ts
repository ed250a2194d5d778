// Adds the texts of the page Explore to the catalog.
import { addTexts } from '../../i18n'
import { explore } from '../../locales/en/lazy/explore'

addTexts({ explore })
