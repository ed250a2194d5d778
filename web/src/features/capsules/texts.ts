// Adds the texts of capsules, and of the parts of other pages that they show.
import { addTexts } from '../../i18n'
import { alerts } from '../../locales/en/lazy/alerts'
import { capsules } from '../../locales/en/lazy/capsules'
import { host } from '../../locales/en/lazy/host'

addTexts({ alerts, capsules, host })
