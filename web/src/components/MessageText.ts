// A message whose arguments may be markup: each slot replaces the argument of its name.
import { defineComponent, type PropType } from 'vue'
import { formatArgument, type MessageKey, messageText } from '../i18n'

export default defineComponent({
  props: {
    message: { type: String as PropType<MessageKey>, required: true },
    args: { type: Object as PropType<Record<string, string | number>>, default: () => ({}) },
  },
  setup(props, { slots }) {
    return () =>
      (messageText(props.message, props.args.count) ?? props.message).split(/\{(\w+)\}/g).map((part, index) => {
        if (index % 2 === 0) return part
        const value = props.args[part]
        return slots[part]?.() ?? (value === undefined ? '' : formatArgument(value))
      })
  },
})
