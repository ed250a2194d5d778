// Adds the texts of the hub page to the catalog.
import { addTexts } from '../../i18n'
import { hubHealth } from '../../locales/en/lazy/hubHealth'

addTexts({ hubHealth })
