// Titles of the settings pages.
export const settings = {
  title: 'Settings',
  api: 'API ↗',
  documentation: 'Documentation ↗',
  sections: { hub: 'Hub', access: 'Access', you: 'You' },
  pages: {
    general: 'General',
    retention: 'Retention & storage',
    collection: 'Collection',
    notifications: 'Notifications',
    security: 'Security',
    sso: 'Single sign-on',
    appearance: 'Appearance',
    account: 'My account',
    tokens: 'My API tokens',
    agents: 'Agents',
    statusPages: 'Status pages',
    users: 'Users',
    audit: 'Audit log',
  },
} as const
