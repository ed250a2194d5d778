// Keyboard shortcuts: one action per key, or per sequence such as `g h`, while the component is mounted.
import { onBeforeUnmount, onMounted } from 'vue'
import { ref, watch } from 'vue'
import { store, storedChoice } from './lib/theme'

/** Elements that use the keys themselves: form fields and open or focused selects. */
const KEY_CONSUMERS = 'input, select, textarea, [role=combobox], [role=listbox], [contenteditable=true]'
/** Elements that the space bar activates. */
const SPACE_CONSUMERS = 'button, a, summary, [role=button], [role=menuitem]'
/** Regions that arrow keys scroll. */
const ARROW_CONSUMERS = '.scroll'
const OPEN_DIALOG = 'dialog[open], [role=dialog], [role=menu]'
/** Time in which the second key of a sequence must follow. */
const SEQUENCE_TIMEOUT_MS = 1_000

/** Whether shortcuts of single keys are on: they can be in the way of speech input (WCAG 2.1.4). */
export const singleKeys = ref(storedChoice('shortcuts', ['off'], 'on') === 'on')
watch(singleKeys, (on) => store('shortcuts', on ? 'on' : 'off'))

let prefix = ''
let prefixTimer: ReturnType<typeof setTimeout> | undefined

function clearPrefix() {
  prefix = ''
  clearTimeout(prefixTimer)
}

/** `prefixes` are first keys of sequences of these actions. */
function prefixesOf(actions: Record<string, unknown>) {
  return new Set(Object.keys(actions).flatMap((key) => (key.length > 1 && key.includes(' ') && key !== ' ' ? [key.split(' ')[0]!] : [])))
}

export function useShortcuts(actions: Record<string, () => void>) {
  const prefixes = prefixesOf(actions)

  function onKeydown(event: KeyboardEvent) {
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey
    const target = event.target instanceof Element ? event.target : null
    const isArrow = event.key.startsWith('Arrow')
    const consumers = [KEY_CONSUMERS, event.key === ' ' ? SPACE_CONSUMERS : '', isArrow ? ARROW_CONSUMERS : ''].filter(Boolean)
    const isTyping = target?.closest(consumers.join()) != null
    // A held arrow key steps on.
    const isRepeated = event.repeat && !isArrow
    if (!singleKeys.value || isTyping || isRepeated || hasModifier || event.defaultPrevented) return
    if (document.querySelector(OPEN_DIALOG)) return
    const key = event.shiftKey && isArrow ? `Shift+${event.key}` : event.key
    const sequence = prefix ? `${prefix} ${key}` : key
    if (Object.hasOwn(actions, sequence)) {
      // Otherwise the key would also be typed into the field that the action focuses.
      event.preventDefault()
      clearPrefix()
      actions[sequence]!()
    } else if (!prefix && prefixes.has(key)) {
      prefix = key
      prefixTimer = setTimeout(clearPrefix, SEQUENCE_TIMEOUT_MS)
    }
  }

  onMounted(() => document.addEventListener('keydown', onKeydown))
  onBeforeUnmount(() => document.removeEventListener('keydown', onKeydown))
}
