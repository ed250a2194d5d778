// Servers behind a jump host, whose passwords are bound to its address and host key.
import type { Server } from '../../api/types'

/** Servers with passwords that are reached through a server, directly or through others. */
export function passwordDependents(id: string, servers: Server[]): Server[] {
  const behind = new Set([id])
  // Each pass adds the servers of at least one further jump.
  for (let size = 0; size !== behind.size;) {
    size = behind.size
    for (const server of servers) if (server.jump && behind.has(server.jump)) behind.add(server.id)
  }
  return servers.filter((server) => server.id !== id && behind.has(server.id) && server.auth_method === 'password')
}

/** Passwords of a request: null deletes the stored password. */
export function dependentPasswords(servers: Server[], entered: Record<string, string>): Record<string, string | null> {
  return Object.fromEntries(servers.map(({ id }) => [id, entered[id] || null]))
}
