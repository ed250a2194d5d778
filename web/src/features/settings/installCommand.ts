/** Port of the first address in an install command, also where it is that of the scheme. */
export function portOf(command: string): string {
  const address = /https?:\/\/\S+/.exec(command)?.[0]
  if (!address || !URL.canParse(address)) return '8000'
  const { port, protocol } = new URL(address)
  return port || (protocol === 'https:' ? '443' : '80')
}
