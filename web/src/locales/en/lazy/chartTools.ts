// Texts of the actions of charts: table, full screen, rules.
export const chartTools = {
  actions: 'Actions of the chart {title}',
  createRule: 'Create rule',
  table: 'Show as table',
  fullScreen: 'Full screen',
  view: 'View',
  views: { chart: 'Chart', table: 'Table' },
  time: 'Time',
  other: '{series}, {other}',
  tableLabel: '{title}, table',
  gap: 'No data until {time}: {reason}',
  newest: 'The newest {shown} of {count} points. Zoom in for the others.',
  points: { one: '{count} point', other: '{count} points' },
  none: 'No points in this range',
} as const
