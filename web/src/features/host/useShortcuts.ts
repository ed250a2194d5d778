// Keyboard shortcuts of a page: one action per key while the page is mounted.
import { onBeforeUnmount, onMounted } from 'vue'

/** Elements that use the keys themselves: form fields and open or focused selects. */
const KEY_CONSUMERS = 'input, select, textarea, [role=combobox], [role=listbox]'
const OPEN_DIALOG = 'dialog[open], [role=dialog]'

export function useShortcuts(actions: Record<string, () => void>) {
  function onKeydown(event: KeyboardEvent) {
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey
    const isTyping = event.target instanceof Element && event.target.closest(KEY_CONSUMERS) !== null
    if (isTyping || event.repeat || hasModifier || document.querySelector(OPEN_DIALOG)) return
    if (!Object.hasOwn(actions, event.key)) return
    // Otherwise the key would also be typed into the field that the action focuses.
    event.preventDefault()
    actions[event.key]!()
  }

  onMounted(() => document.addEventListener('keydown', onKeydown))
  onBeforeUnmount(() => document.removeEventListener('keydown', onKeydown))
}
