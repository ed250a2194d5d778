// Adds the texts of the replay to the catalog.
import { addTexts } from '../../i18n'
import { replay } from '../../locales/en/lazy/replay'

addTexts({ replay })
