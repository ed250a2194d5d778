import { mount } from '@vue/test-utils'
import { afterEach, expect, it, vi } from 'vitest'
import { defineComponent } from 'vue'
import { useShortcuts } from './useShortcuts'

afterEach(() => (document.body.innerHTML = ''))

function start() {
  const action = vi.fn()
  const tenfold = vi.fn()
  const page = defineComponent({
    setup: () => useShortcuts({ p: action, ArrowLeft: action, 'Shift+ArrowLeft': tenfold }),
    template: '<p></p><input /><button role="combobox"></button><div class="scroll"></div>',
  })
  const wrapper = mount(page, { attachTo: document.body })
  const press = (target: string, init: KeyboardEventInit = {}) => {
    const event = new KeyboardEvent('keydown', { key: 'p', bubbles: true, cancelable: true, ...init })
    document.querySelector(target)!.dispatchEvent(event)
    return event
  }
  return { action, tenfold, wrapper, press }
}

it('runs the action of a key and prevents its default', () => {
  const { action, wrapper, press } = start()
  expect(press('p').defaultPrevented).toBe(true)
  expect(press('p', { key: 'x' }).defaultPrevented).toBe(false)
  expect(press('p', { key: 'toString' }).defaultPrevented).toBe(false)
  expect(action).toHaveBeenCalledOnce()
  wrapper.unmount()
})

it('ignores fields, selects, modifiers, repetition and open dialogs', () => {
  const { action, wrapper, press } = start()
  press('input')
  press('[role=combobox]')
  press('p', { ctrlKey: true })
  press('p', { repeat: true })
  document.body.insertAdjacentHTML('beforeend', '<div role="dialog"></div>')
  press('p')
  wrapper.unmount()
  document.querySelector('[role=dialog]')!.remove()
  press('body')
  expect(action).not.toHaveBeenCalled()
})

it('arrow keys repeat, have another action with Shift, and scroll regions', () => {
  const { action, tenfold, press } = start()
  press('p', { key: 'ArrowLeft', repeat: true })
  press('.scroll', { key: 'ArrowLeft' })
  expect(action).toHaveBeenCalledOnce()
  press('p', { key: 'ArrowLeft', shiftKey: true })
  expect(tenfold).toHaveBeenCalledOnce()
})
