import { mount } from '@vue/test-utils'
import { describe, expect, it } from 'vitest'
import MessageText from './components/MessageText'
import { addTexts, messageText, t } from './i18n'
import en from './locales/en'
import { alerts } from './locales/en/lazy/alerts'

addTexts({ alerts })

type Node = { readonly [key: string]: string | Node }
const texts = (node: Node): string[] => Object.values(node).flatMap((value) => (typeof value === 'string' ? [value] : texts(value)))

describe('t', () => {
  it('inserts arguments and formats numbers', () => {
    expect(t('common.account', { name: 'alice' })).toBe('Account of alice')
    expect(t('alerts.list.more', { count: 12_345 })).toBe('and 12,345 more')
  })

  it('selects the plural form', () => {
    expect(t('common.hostCount', { count: 1 })).toBe('1 host')
    expect(t('common.hostCount', { count: 0 })).toBe('0 hosts')
  })

  it('rejects unknown keys and missing arguments at compile time', () => {
    // @ts-expect-error unknown key
    expect(t('common.unknown')).toBe('common.unknown')
    // @ts-expect-error missing argument
    expect(t('common.account')).toBe('Account of {name}')
    expect(messageText('common.severity')).toBeNull()
  })
})

describe('catalog', () => {
  it('has no empty text and no stray brace', () => {
    for (const text of texts({ ...en, alerts })) {
      expect(text).not.toBe('')
      expect(text.replace(/\{\w+\}/g, '')).not.toMatch(/[{}]/)
    }
  })
})

describe('MessageText', () => {
  it('renders slots and arguments in the order of the text', () => {
    const wrapper = mount(MessageText, {
      props: { message: 'alerts.channels.removeText' },
      slots: { name: '<b>Pager</b>' },
    })
    expect(wrapper.html({ raw: true })).toBe('Waiting notifications of <b>Pager</b> are skipped.')
    const plain = mount(MessageText, { props: { message: 'alerts.channels.removeText', args: { name: 'Pager' } } })
    expect(plain.html({ raw: true })).toBe('Waiting notifications of Pager are skipped.')
  })
})
