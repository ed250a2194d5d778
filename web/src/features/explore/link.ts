// Link from a chart of a host to the Explore page.
import type { RouteLocationRaw } from 'vue-router'
import type { Series, View } from '../../charts/chartProps'
import { RANGE_PRESETS } from '../host/range'

/** Queries of a link at most: those of the page. */
const MAX_QUERIES = 10

/** Address of the Explore page with the CPU usage of some hosts. */
export function exploreHosts(hosts: readonly string[]): RouteLocationRaw {
  const queries = [{ id: 'A', metric: 'cpu.usage', hosts: { hosts }, by: 'host', limit: Math.max(hosts.length, 1) }]
  return { path: '/explore', query: { q: JSON.stringify({ queries }) } }
}

/** Address of the Explore page with the metrics of a chart and its time range. */
export function exploreLink(host: string, series: readonly Series[], view: View): RouteLocationRaw {
  const metrics = [...new Set(series.map(({ metric }) => metric))].slice(0, MAX_QUERIES)
  const instances = (metric: string) => series.filter((other) => other.metric === metric && other.instance)
  const queries = metrics.map((metric, at) => {
    const named = instances(metric)
    const instance = named.length === 1 ? { instance: named[0]!.instance } : {}
    return { id: 'ABCDEGHIJK'[at]!, metric, ...instance, hosts: { hosts: [host] }, by: named.length ? 'series' : 'host' }
  })
  const { fixed, window } = view
  const range = fixed
    ? { from: String(Math.round(fixed.from * 1000)), to: String(Math.round(fixed.to * 1000)) }
    : { range: RANGE_PRESETS.find(({ seconds }) => seconds === window)?.key }
  return { path: '/explore', query: { q: JSON.stringify({ queries }), split: 'overlay', ...range } }
}
