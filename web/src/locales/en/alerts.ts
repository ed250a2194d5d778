// Names of the alert pages in the first load; `lazy/alerts.ts` has the others.
export const alerts = {
  title: 'Alerts',
  tabs: { active: 'Active', history: 'History' },
  history: { title: 'Incident history' },
  incident: { title: 'Incident' },
  rules: { title: 'Rules', create: 'New rule' },
  rule: { title: 'Rule' },
  silences: { title: 'Silences' },
  channels: { title: 'Channels' },
} as const
