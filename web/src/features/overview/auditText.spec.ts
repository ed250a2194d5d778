import { expect, it } from 'vitest'
import { auditText } from './auditText'

it.each([
  ['user admin', 'rule.create', 'rule Disk full soon', 'admin created rule Disk full soon'],
  ['user admin', 'login', 'user admin', 'admin logged in'],
  ['configuration', 'user.create', 'user $& {actor}', 'configuration created user $& {actor}'],
  ['user admin', 'job.retry_all', 'queue', 'admin: job retry all queue'],
])('%s, %s, %s', (actor, text, object, expected) => expect(auditText({ actor, text, object })).toBe(expected))
