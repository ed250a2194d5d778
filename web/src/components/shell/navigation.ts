// Entries of the main navigation and of the `g` shortcuts. Pages join with their first version.
import { Activity, Bell, Cable, ChartSpline, LayoutDashboard, Package, Server, Settings } from '@lucide/vue'
import type { Component } from 'vue'
import type { PlainMessageKey } from '../../i18n'

export interface NavigationEntry {
  to: string
  label: PlainMessageKey
  icon: Component
  /** Second key of the shortcut `g …`. */
  key: string
  /** Second part of the side rail: administration. */
  secondary?: boolean
}

export const NAVIGATION: readonly NavigationEntry[] = [
  { to: '/', label: 'overview.title', icon: LayoutDashboard, key: 'o' },
  { to: '/hosts', label: 'hosts.title', icon: Server, key: 'h' },
  { to: '/explore', label: 'shell.explore', icon: ChartSpline, key: 'e' },
  { to: '/alerts', label: 'alerts.title', icon: Bell, key: 'a' },
  { to: '/capsules', label: 'shell.capsules', icon: Package, key: 'c' },
  { to: '/agentless', label: 'servers.short', icon: Cable, key: 'l', secondary: true },
  { to: '/hub', label: 'shell.hub', icon: Activity, key: 'u', secondary: true },
  { to: '/settings', label: 'settings.title', icon: Settings, key: 's', secondary: true },
]

/** Whether a page belongs to an entry. */
export const isCurrent = (entry: NavigationEntry, path: string) =>
  entry.to === '/' ? path === '/' : path === entry.to || path.startsWith(`${entry.to}/`)
