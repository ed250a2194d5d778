// Base path of the dashboard. The hub writes it into the page (`<base>`), so that one build works below any path.

/** Path of the dashboard with a slash at its end, such as `/` or `/perfwatch/`. */
export const basePath = new URL('.', document.baseURI).pathname

/** Path of a file or route of the hub; `path` starts with a slash. */
export const hubPath = (path: string) => basePath + path.slice(1)

/** URL of the dashboard, without a page. */
export const dashboardUrl = location.origin + basePath

/** URL of a WebSocket route of the hub. */
export const webSocketUrl = (path: string) => `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${hubPath(path)}`
