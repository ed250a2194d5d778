import { expect, it } from 'vitest'
import { newHost } from './statusPageForm'
import { portOf } from './installCommand'

it.each([
  ['curl -fsSL http://127.0.0.1:18700/install.sh | sudo sh', '18700'],
  ['(curl -fsSL https://watch.example/hub/install.sh || wget -O- https://watch.example/hub/install.sh || echo exit 1) | sudo sh', '443'],
  ['curl -fsSL http://[::1]/install.sh | sudo sh', '80'],
  ['', '8000'],
])('port of %j is %s', (command, port) => expect(portOf(command)).toBe(port))

it('a host of a status page starts without a shown name', () => {
  expect(newHost('db-1')).toEqual({ host: 'db-1', name: '' })
})
