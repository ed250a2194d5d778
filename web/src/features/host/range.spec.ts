// The address says what is on screen, and nonsense in it is no range.
import { expect, it } from 'vitest'
import { fromQuery, RANGE_PRESETS, toQuery } from './range'

it('reads what it wrote', () => {
  for (const span of RANGE_PRESETS) {
    for (const fixed of [null, { from: 1_763_719_200, to: 1_763_719_500.5 }]) {
      for (const at of [null, 1_763_719_201.25]) {
        const range = { span, fixed, at }
        const query = JSON.parse(JSON.stringify(toQuery(range)))
        expect(fromQuery(query)).toEqual(range)
      }
    }
  }
})

it('takes nonsense as the last five minutes', () => {
  for (const query of [{}, { range: '9y' }, { from: '5', to: 'x' }, { from: '9', to: '5' }, { at: '-3' }, { from: '', to: '' }]) {
    expect(fromQuery(query as never)).toEqual({ span: RANGE_PRESETS[1], fixed: null, at: null })
  }
})
