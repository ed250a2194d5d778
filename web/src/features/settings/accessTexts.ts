// Adds the texts of accounts, tokens, agents, users and audit log to the catalog.
import { addTexts } from '../../i18n'
import { access } from '../../locales/en/lazy/access'

addTexts({ access })
