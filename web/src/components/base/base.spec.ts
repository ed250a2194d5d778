import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import { ApiError } from '../../api/errors'
import ActionDialog from '../ActionDialog.vue'
import BaseField from './BaseField.vue'
import BaseSelect from './BaseSelect.vue'
import BaseTable from './BaseTable.vue'

afterEach(() => (document.body.innerHTML = ''))

describe('ActionDialog', () => {
  const open = async (action: () => Promise<unknown>) => {
    const wrapper = mount(ActionDialog, { props: { title: 'Remove rule?', verb: 'Remove', danger: true, action }, attachTo: document.body })
    ;(wrapper.vm as unknown as { open: () => void }).open()
    await nextTick()
    return wrapper
  }
  const dialog = () => document.querySelector('[role=dialog]')
  const submit = async () => {
    dialog()!
      .querySelector('form')!
      .dispatchEvent(new Event('submit', { cancelable: true }))
    await flushPromises()
  }

  it('closes after the action', async () => {
    const action = vi.fn(async () => {})
    const wrapper = await open(action)
    expect(dialog()!.textContent).toContain('Remove rule?')
    await submit()
    expect(action).toHaveBeenCalledOnce()
    expect(wrapper.emitted('close')).toHaveLength(1)
    await vi.waitFor(() => expect(dialog()).toBeNull())
  })

  it('stays open and shows the error of the hub', async () => {
    await open(() => Promise.reject(new ApiError(409, 'rule_in_use', 'the rule is in use')))
    await submit()
    expect(dialog()!.querySelector('[role=alert]')!.textContent).toBe('The rule is in use.')
  })
})

describe('BaseField', () => {
  it('labels the control and links the error', () => {
    const wrapper = mount(BaseField, {
      props: { label: 'Interval', error: 'at least 60 s' },
      slots: { default: `<template #default="control"><input v-bind="control" /></template>` },
    })
    const input = wrapper.find('input')
    expect(wrapper.find('label').attributes('for')).toBe(input.attributes('id'))
    expect(wrapper.find(`#${input.attributes('aria-describedby')}`).text()).toBe('at least 60 s')
    expect(input.attributes('aria-invalid')).toBe('true')
  })
})

describe('BaseSelect', () => {
  it('shows the label of the selected option, also of the empty value', async () => {
    const options = [
      { value: '', label: 'Any severity' },
      { value: 'critical', label: 'Critical' },
    ]
    const wrapper = mount(BaseSelect, { props: { options, label: 'Severity', modelValue: '' } })
    expect(wrapper.find('button').attributes('aria-label')).toBe('Severity')
    expect(wrapper.find('button').text()).toBe('Any severity')
    await wrapper.setProps({ modelValue: 'critical' })
    expect(wrapper.find('button').text()).toBe('Critical')
  })
})

describe('BaseTable', () => {
  it('is a labeled region that scrolls by keyboard', () => {
    const wrapper = mount(BaseTable, {
      props: { label: 'Hosts', columns: [{ label: 'Host', text: true }, { label: 'Cores' }, { label: 'Actions', hidden: true }] },
      slots: { default: '<tr><td>a</td></tr>' },
    })
    expect(wrapper.attributes()).toMatchObject({ role: 'region', tabindex: '0', 'aria-label': 'Hosts' })
    expect(wrapper.findAll('th').map((header) => header.classes('left'))).toEqual([true, false, false])
    expect(wrapper.find('th:last-child .visually-hidden').text()).toBe('Actions')
  })
})
