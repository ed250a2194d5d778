// Adds the texts of the agentless pages; imported by each module that shows some of them.
import { addTexts } from '../../i18n'
import { agentless } from '../../locales/en/lazy/agentless'
import { servers } from '../../locales/en/lazy/servers'

addTexts({ agentless, servers })
