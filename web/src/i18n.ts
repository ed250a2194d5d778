// Translations: `t('page.key', { name })` over the typed catalog in `locales/en`.
// A missing key or argument is a type error. `{name}` marks an argument; plural messages are objects
// with the forms of `Intl.PluralRules`, selected by the argument `count`.
import en from './locales/en'
import type { LazyTexts } from './locales/en/lazy'

/** Messages of the first load and of the pages that are loaded later. */
type Messages = Omit<typeof en, keyof LazyTexts> & LazyTexts
type PluralForms = { readonly one: string; readonly other: string }
type Message = string | PluralForms

type KeyOf<T> = { [K in keyof T & string]: T[K] extends Message ? K : `${K}.${KeyOf<T[K]>}` }[keyof T & string]
type MessageAt<T, K> = K extends `${infer Head}.${infer Rest}`
  ? Head extends keyof T
    ? MessageAt<T[Head], Rest>
    : never
  : K extends keyof T
    ? T[K]
    : never
type ArgumentNames<S> = S extends `${string}{${infer Name}}${infer Rest}` ? Name | ArgumentNames<Rest> : never
type NamesIn<M> = M extends string ? ArgumentNames<M> : M extends PluralForms ? 'count' | ArgumentNames<M['one' | 'other']> : never

/** Shape of a catalog in another language: same keys, any text. */
export type Catalog<T = Messages> = {
  readonly [K in keyof T]: T[K] extends string ? string : T[K] extends PluralForms ? PluralForms : Catalog<T[K]>
}

/** Dotted path of a message in the catalog. */
export type MessageKey = KeyOf<Messages>

/** Arguments of a message: required if its text has any. */
export type MessageArguments<K extends string, C = Messages> = [NamesIn<MessageAt<C, K>>] extends [never]
  ? []
  : [args: Record<NamesIn<MessageAt<C, K>>, string | number>]

/** Messages without arguments, such as titles of routes. */
export type PlainMessageKey = { [K in MessageKey]: [NamesIn<MessageAt<Messages, K>>] extends [never] ? K : never }[MessageKey]

const LOCALE = 'en'
const plurals = new Intl.PluralRules(LOCALE)
const numbers = new Intl.NumberFormat(LOCALE)

function isMessage(node: unknown): node is Message {
  return typeof node === 'string' || (typeof node === 'object' && node !== null && typeof (node as PluralForms).other === 'string')
}

const merged: Record<string, unknown> = { ...en }

/** Adds the texts of a page that is not part of the first load. The page calls it before it shows any of them. */
export function addTexts(texts: Partial<LazyTexts>) {
  Object.assign(merged, texts)
}

/** Text of a message before its arguments are inserted; null if the catalog has no such key. */
export function messageText(key: string, count?: string | number, catalog: unknown = merged): string | null {
  let node = catalog
  for (const part of key.split('.')) node = typeof node === 'object' && node !== null ? (node as Record<string, unknown>)[part] : undefined
  if (!isMessage(node)) return null
  if (typeof node === 'string') return node
  return plurals.select(Number(count)) === 'one' ? node.one : node.other
}

export const formatArgument = (value: string | number) => (typeof value === 'number' ? numbers.format(value) : value)

/** Function `t` of a catalog. */
function translator<C>(catalog: C) {
  return <K extends KeyOf<C>>(key: K, ...[args]: MessageArguments<K, C>): string => {
    const values = (args ?? {}) as Record<string, string | number>
    const text = messageText(key, values.count, catalog) ?? key
    return text.replace(/\{(\w+)\}/g, (placeholder, name: string) => {
      const value = values[name]
      return value === undefined ? placeholder : formatArgument(value)
    })
  }
}

/** Text of a message with its arguments; numbers are formatted for the locale. */
export const t = translator<Messages>(merged as unknown as Messages)
