// English catalog of all texts of the dashboard, nested by page.
import { alerts } from './en/alerts'
import { auth } from './en/auth'
import { charts, common, errors } from './en/common'
import { hosts } from './en/hosts'
import { overview } from './en/overview'
import { servers } from './en/servers'
import { settings } from './en/settings'
import { shell } from './en/shell'

export default { common, charts, errors, alerts, auth, hosts, overview, servers, settings, shell }
