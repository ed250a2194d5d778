// Adds the texts of the host list; imported by each module that shows some of them.
import { addTexts } from '../../i18n'
import { hostList } from '../../locales/en/lazy/hostList'

addTexts({ hostList })
