import { mount } from '@vue/test-utils'
import { expect, it } from 'vitest'
import { ApiError } from '../../api/errors'
import ChannelSettings from './ChannelSettings.vue'
import { fieldError, fieldOptions } from './channelFields'

const FIELD = { label: 'URL', help: 'Receives a POST', example: 'https://example.org', required: true, secret: true, multiline: false }
const KIND = { name: 'webhook', label: 'Webhook', tracks_incidents: true, fields: [{ ...FIELD, name: 'url' }] }

it.each([
  ['url: required', { field: 'url', text: 'Required.' }],
  ['template: unknown variable', null],
  ['modified concurrently', null],
])('error "%s"', (message, expected) => {
  expect(fieldError(new ApiError(400, 'invalid_channel', message), ['url'])).toEqual(expected)
})

it('fixed values are a select', () => {
  expect(fieldOptions('email', 'security')?.map(({ value }) => value)).toEqual(['', 'starttls', 'tls', 'none'])
  expect(fieldOptions('email', 'port')).toBeUndefined()
})

it('an error is shown at its field, and a secret on request', async () => {
  const props = { kind: KIND, required: [], secrets: [], errors: { url: 'Required.' }, modelValue: { url: 'https://x' } }
  const form = mount(ChannelSettings, { props })
  const input = form.find('input')
  expect(input.attributes('aria-invalid')).toBe('true')
  expect(form.find('.field .bad').text()).toBe('Required.')
  expect(input.attributes('type')).toBe('password')
  await form.find('button').trigger('click')
  expect(input.attributes('type')).toBe('text')
})
