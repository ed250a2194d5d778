// Adds the texts of the time range controls to the catalog.
import { addTexts } from '../../i18n'
import { timeRange } from '../../locales/en/lazy/timeRange'

addTexts({ timeRange })
