// Entry point of the static viewer: a single HTML file that opens capsules without a hub.
import { createApp } from 'vue'
import { applyTheme } from '../lib/theme'
import '../styles/tokens.css'
import '../styles/base.css'
import '../styles/components.css'
import CapsuleApp from './CapsuleApp.vue'

applyTheme()
createApp(CapsuleApp).mount('#app')
