// Link to a host that keeps the time of a replay.
import { useRoute } from 'vue-router'

export function useHostLink() {
  const route = useRoute()
  return (id: string) => ({ path: `/hosts/${id}`, query: route.query.at ? { at: route.query.at } : {} })
}
