// Text whose parts between pairs of `**` are bold, such as the numbers of a sentence.
import { defineComponent, h } from 'vue'

export default defineComponent({
  props: { text: { type: String, required: true } },
  setup(props) {
    return () => props.text.split('**').map((part, index) => (index % 2 ? h('b', part) : part))
  },
})
