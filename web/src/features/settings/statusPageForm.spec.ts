import { describe, expect, it } from 'vitest'
import type { StatusPage } from '../../api/types'
import { newGroup, toInput, toRequest } from './statusPageForm'

const DAY_MS = 86_400_000
const page: StatusPage = {
  id: 'p1',
  title: 'Shop',
  content: {
    description: 'All of it',
    groups: [{ name: 'Web', hosts: [{ host: 'h1', name: 'Frontend' }] }],
    metrics: ['cpu'],
    incidents: true,
    announcements: [{ title: 'Slow', state: 'identified', updates: [{ at_ms: 5, text: 'We look at it.' }] }],
  },
  enabled: false,
  state: 'disabled',
  expires_ms: 50 * DAY_MS,
  owner: 'admin',
  created_ms: 1,
  updated_ms: 7,
}

describe('form of a status page', () => {
  it('returns an unchanged page as it was', () => {
    const { title, content, expires_ms, enabled, updated_ms } = page
    expect(toRequest(toInput(page, 'Services'), page, 0)).toEqual({ title, content, expires_ms, enabled, updated_ms })
  })

  it('shows no values by default, and leaves out groups without hosts', () => {
    const input = toInput(null, 'Services')
    input.title = 'New'
    input.groups.push(newGroup('Database', [{ host: 'h2', name: 'Orders' }]))
    expect(toRequest(input, null, 1_000)).toEqual({
      title: 'New',
      content: {
        description: '',
        groups: [{ name: 'Database', hosts: [{ host: 'h2', name: 'Orders' }] }],
        metrics: [],
        incidents: true,
        announcements: [],
      },
      expires_ms: 1_000 + 90 * DAY_MS,
      enabled: true,
      updated_ms: null,
    })
  })

  it('puts a new text before the earlier ones, without a time', () => {
    const input = toInput(page, 'Services')
    input.announcements[0]!.text = 'Found it.'
    expect(toRequest(input, page, 0).content.announcements[0]!.updates).toEqual([
      { at_ms: 0, text: 'Found it.' },
      { at_ms: 5, text: 'We look at it.' },
    ])
  })

  it('does not change the page that it was opened with', () => {
    const input = toInput(page, 'Services')
    input.groups[0]!.hosts[0]!.name = 'Changed'
    input.metrics.push('load')
    expect(page.content.groups[0]!.hosts[0]!.name).toBe('Frontend')
    expect(page.content.metrics).toEqual(['cpu'])
  })
})
