// Proxy check: what a reverse proxy between this browser and the hub does wrong, with the fix.
import { onMounted, ref } from 'vue'
import { api, unwrap } from '../../api/client'
import type { ProxyFault } from '../../api/types'
import { t } from '../../i18n'
import { dashboardUrl, webSocketUrl } from '../../lib/base'
import { ApiError } from '../../api/errors'

/** Time in which a WebSocket must open. */
const PROBE_TIMEOUT_MS = 5_000

/** Fault that the login page shows. */
export interface ProxyNotice {
  text: string
  isCritical: boolean
}

/** Text of a fault of the hub's check. */
export function faultText({ code, expected, received, message }: ProxyFault): string {
  const values = { expected, received }
  switch (code) {
    case 'host_mismatch':
      return t('auth.proxy.hostMismatch', values)
    case 'proto_missing':
      return t('auth.proxy.protoMissing')
    case 'proto_mismatch':
      return t('auth.proxy.protoMismatch', values)
    case 'untrusted_proxy':
      return t('auth.proxy.untrustedProxy')
    case 'base_path_mismatch':
      return t('auth.proxy.basePathMismatch', { ...values, url: dashboardUrl })
    case 'local_links':
      return t('auth.proxy.localLinks', values)
    default:
      return `${message.charAt(0).toUpperCase()}${message.slice(1)}.`
  }
}

/** Whether a WebSocket to the hub opens. */
function probeWebSocket(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = new WebSocket(webSocketUrl('/api/ws/probe'))
    const finish = (opened: boolean) => {
      clearTimeout(timeout)
      socket.onopen = socket.onclose = null
      socket.close()
      resolve(opened)
    }
    const timeout = setTimeout(() => finish(false), PROBE_TIMEOUT_MS)
    socket.onopen = () => finish(true)
    socket.onclose = () => finish(false)
  })
}

/** Faults of the connection, checked once; empty while all is right. */
export function useProxyCheck() {
  const notices = ref<ProxyNotice[]>([])
  onMounted(async () => {
    const query = { location: dashboardUrl }
    try {
      const { faults } = await unwrap(api.GET('/api/v1/proxy-check', { params: { query } }))
      const shown = faults.filter(({ severity }) => severity !== 'info')
      notices.value = shown.map((fault) => ({ text: faultText(fault), isCritical: fault.severity === 'critical' }))
    } catch (error) {
      // Without any answer, the hub is down; the login reports that.
      if (error instanceof ApiError) notices.value = [{ text: t('auth.proxy.noApi', { url: dashboardUrl }), isCritical: true }]
      return
    }
    if (!(await probeWebSocket())) notices.value = [...notices.value, { text: t('auth.proxy.webSocketBlocked'), isCritical: false }]
  })
  return notices
}
