// Links of a layout to its pages, from the routes.
import { computed } from 'vue'
import { useRouter } from 'vue-router'
import { t } from './i18n'
import { hasRole } from './session'

/** Links to the pages below `layout` that the user may open, in the order of the routes. */
export function usePageLinks(layout: string) {
  const pages = useRouter().options.routes.find((route) => route.path === layout)?.children ?? []
  return computed(() =>
    pages.flatMap(({ path, meta }) => {
      const { access = 'viewer', icon, section, title, label = title } = meta ?? {}
      if (!label || access === 'public' || !hasRole(access)) return []
      return [{ to: path ? `${layout}/${path}` : layout, name: t(label), icon, section: section && t(section) }]
    }),
  )
}
