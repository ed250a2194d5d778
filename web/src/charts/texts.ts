// Adds the texts of the actions of charts to the catalog.
import { addTexts } from '../i18n'
import { chartTools } from '../locales/en/lazy/chartTools'

addTexts({ chartTools })
