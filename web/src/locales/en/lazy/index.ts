// Types of the texts that are loaded with their pages. The pages add them with `addTexts`.
import type { access } from './access'
import type { activity } from './activity'
import type { agentless } from './agentless'
import type { alerts } from './alerts'
import type { capsules } from './capsules'
import type { chartTools } from './chartTools'
import type { explore } from './explore'
import type { host } from './host'
import type { hostList } from './hostList'
import type { hubHealth } from './hubHealth'
import type { hubSettings } from './hubSettings'
import type { replay } from './replay'
import type { servers } from './servers'
import type { statusPages } from './statusPages'
import type { timeRange } from './timeRange'

export interface LazyTexts {
  access: typeof access
  activity: typeof activity
  agentless: typeof agentless
  alerts: typeof alerts
  capsules: typeof capsules
  chartTools: typeof chartTools
  explore: typeof explore
  host: typeof host
  hostList: typeof hostList
  hubHealth: typeof hubHealth
  hubSettings: typeof hubSettings
  replay: typeof replay
  servers: typeof servers
  statusPages: typeof statusPages
  timeRange: typeof timeRange
}
