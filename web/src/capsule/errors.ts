// Reasons for which a file is no valid capsule.

/** Key of the text below `capsules.errors`. */
export type CapsuleErrorCode = 'notACapsule' | 'unsupported' | 'incomplete' | 'damaged' | 'invalid' | 'tooLarge'

export class CapsuleError extends Error {
  /** `detail` names the invalid part for bug reports. */
  constructor(
    readonly code: CapsuleErrorCode,
    readonly detail = '',
  ) {
    super(detail ? `${code}: ${detail}` : code)
  }
}

export const invalid = (detail: string) => new CapsuleError('invalid', detail)
