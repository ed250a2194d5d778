import { describe, expect, it } from 'vitest'
import { valuesOf } from './history'

describe('values of a snapshot', () => {
  const values = valuesOf({
    timestamp: '2026-11-21T10:00:00Z',
    seq: 7,
    cpu: { usage: 12.5, core: { 0: { usage: 25 } } },
    network: { total: { rx_bytes: 30 }, interface: { eth0: { rx_bytes: 10, up: 1 }, 'wg-device': { rx_bytes: 20 } } },
    filesystem: { mount: { '/': { used_percent: 40.1 }, '/srv/a.b': { used_percent: 50 } } },
    processes: { total: 5, top: [{ pid: 1 }] },
    errors: { disk: 'broken' },
  })

  it.each([
    ['cpu.usage', undefined, 12.5],
    ['network.rx_bytes', 'eth0', 10],
    ['network.rx_bytes', 'wg-device', 20],
    ['network.total.rx_bytes', undefined, 30],
    ['filesystem.used_percent', '/srv/a.b', 50],
    ['processes.total', undefined, 5],
    ['network.rx_bytes', 'eth1', null],
    ['errors.disk', undefined, null],
  ])('%s of %s is %s', (metric, instance, expected) => expect(values.last(metric, instance)).toBe(expected))

  it('lists instances of a metric', () => {
    expect(values.instances('network.rx_bytes')).toEqual(['eth0', 'wg-device'])
    expect(values.instances('network.up')).toEqual(['eth0'])
    expect(values.instances('disk.read_bytes')).toEqual([])
  })
})
