// Confirmation of lasting changes: the hub asks for the password again before it creates users or tokens.

let confirm: () => Promise<boolean> = () => Promise.resolve(false)

/** Registers the dialog that asks for the password. It resolves to whether the hub accepted it. */
export function onConfirmationRequired(handler: () => Promise<boolean>) {
  confirm = handler
}

/** Repeats a request once after the user confirmed it. */
export async function fetchConfirmed(request: Request): Promise<Response> {
  const repeated = request.clone()
  const response = await fetch(request)
  if (response.status !== 403) return response
  const body = (await response
    .clone()
    .json()
    .catch(() => null)) as { error?: { code?: string } } | null
  if (body?.error?.code !== 'confirmation_required' || !(await confirm())) return response
  return fetch(repeated)
}
