// Texts of agentless hosts in the first load; `lazy/servers.ts` has the others.
export const servers = {
  title: 'Agentless hosts',
  short: 'Agentless',
  tabs: { hosts: 'Hosts', queue: 'Queue' },
  add: 'Add SSH host',
  queue: { title: 'Collection queue' },
} as const
