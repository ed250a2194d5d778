// Entry: theme first, so that nothing flashes, then the app.
import { createApp } from 'vue'
import App from './App.vue'
import { applyTheme } from './lib/theme'
import { router } from './router'
import 'uplot/dist/uPlot.min.css'
import './styles/tokens.css'
import './styles/base.css'

applyTheme()
createApp(App).use(router).mount('#app')
