import { mount } from '@vue/test-utils'
import { afterEach, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import LazySelect from '../../components/base/LazySelect.vue'
import { DEFAULT_PRESET, fromQuery } from './range'
import RangeBar from './RangeBar.vue'

afterEach(() => (document.body.innerHTML = ''))

function start(visibleRange: { from: number; to: number } | null = null) {
  const props = { range: { ...fromQuery({}), preset: DEFAULT_PRESET, fixed: visibleRange }, visibleRange }
  return mount(RangeBar, { props, attachTo: document.body })
}
const dialog = () => document.querySelector('[role=dialog]')

it('preset is emitted and the select keeps the current range', async () => {
  const bar = start()
  const select = bar.findComponent(LazySelect)
  expect(select.text()).toBe('5 min')
  select.vm.$emit('update:modelValue', '24h')
  expect(bar.emitted('selectPreset')).toEqual([['24h']])
  expect(select.text()).toBe('5 min')
})

it('custom range is entered in a dialog', async () => {
  const bar = start()
  bar.findComponent(LazySelect).vm.$emit('update:modelValue', 'custom')
  await nextTick()
  await vi.dynamicImportSettled()
  await vi.waitFor(() => expect(dialog()).not.toBeNull())
  const [from, to] = [...dialog()!.querySelectorAll('input')]
  const fill = (input: HTMLInputElement, text: string) => {
    input.value = text
    input.dispatchEvent(new Event('input'))
  }
  fill(from!, '2026-01-02T00:00:00')
  fill(to!, '2026-01-01T00:00:00')
  await vi.waitFor(() => expect(dialog()!.textContent).toContain('"From" must be before "To"'))
  fill(from!, '2025-12-31T00:00:00')
  await vi.waitFor(() => expect(dialog()!.textContent).not.toContain('must be before'))
  dialog()!
    .querySelector('form')!
    .dispatchEvent(new Event('submit', { cancelable: true }))
  const seconds = (text: string) => new Date(text).getTime() / 1000
  expect(bar.emitted('selectRange')).toEqual([[seconds('2025-12-31T00:00:00'), seconds('2026-01-01T00:00:00')]])
  await vi.waitFor(() => expect(dialog()).toBeNull())
})

it('fixed range shows its bounds with its date once', async () => {
  const secondsOf = (day: number, hour: number) => new Date(2026, 10, day, hour).getTime() / 1000
  vi.useFakeTimers({ toFake: ['Date'], now: secondsOf(30, 8) * 1000 })
  const bar = start({ from: secondsOf(29, 3), to: secondsOf(29, 4) })
  const text = () => bar.find('.range.fixed').text()
  expect(text()).toBe('Nov 29, 2026, 03:00:00 – 04:00:00')
  expect(bar.findComponent(LazySelect).text()).toBe('Custom')
  await bar.setProps({ visibleRange: { from: secondsOf(30, 3), to: secondsOf(30, 4) } })
  expect(text()).toBe('03:00:00 – 04:00:00')
  await bar.setProps({ visibleRange: { from: secondsOf(29, 23), to: secondsOf(30, 1) } })
  expect(text()).toBe('Nov 29, 2026, 23:00:00 – Nov 30, 2026, 01:00:00')
  vi.useRealTimers()
})
