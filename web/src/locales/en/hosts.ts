// Texts of the host list and of the host page.
export const hosts = {
  title: 'Hosts',
  addHost: 'Add host',
  addShort: 'Add',
  sshShort: 'SSH',
  unreachable: '{error} Retrying automatically.',
  none: 'No hosts yet',
  noneOperator: '{agent}: run one command on it. Or {ssh} without installing anything.',
  noneAgent: 'Add a host with an agent',
  noneSsh: 'collect over SSH',
  noneViewer: 'Or none that you have access to.',
  state: 'State',
  os: 'OS',
  cores: 'Cores',
  memory: 'Memory',
  lastSeen: 'Last seen',
  states: {
    online: 'Online',
    no_data: 'No data',
    new: 'New',
    disabled: 'Disabled',
    unknown: 'Unknown',
  },
  connection: 'Connection',
  tagsOf: 'Tags of {name}',
  editTags: 'Edit tags',
  tagsNote: 'User access can be limited to hosts with certain tags.',
  removeTitle: 'Remove {name}?',
  removeText:
    'For decommissioned hosts: alerts are resolved, agents are revoked, history is deleted by retention. ' +
    'The host reappears if it sends data again.',
} as const
