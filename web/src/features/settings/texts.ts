// Adds the texts of the settings of the hub to the catalog.
import { addTexts } from '../../i18n'
import { hubSettings } from '../../locales/en/lazy/hubSettings'

addTexts({ hubSettings })

type KnownCollector = keyof typeof hubSettings.collectors.about

/** Whether the texts describe a collector; those of newer agents have no description. */
export const isCollector = (name: string): name is KnownCollector => Object.hasOwn(hubSettings.collectors.about, name)
