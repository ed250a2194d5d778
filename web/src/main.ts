// Entry point. The theme is applied before the first paint.
import { VueQueryPlugin } from '@tanstack/vue-query'
import { createApp } from 'vue'
import { queryClient } from './api/query'
import App from './App.vue'
import { applyTheme } from './lib/theme'
import { router } from './router'
import './styles/fonts.css'
import './styles/tokens.css'
import './styles/base.css'
import './styles/components.css'

applyTheme()
createApp(App).use(router).use(VueQueryPlugin, { queryClient }).mount('#app')
