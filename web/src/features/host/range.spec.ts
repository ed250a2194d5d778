// Conversion between the visible range and the URL query.
import { expect, it } from 'vitest'
import { DEFAULT_PRESET, fromQuery, RANGE_PRESETS, SPANS, toQuery } from './range'

it('range round-trips through the query', () => {
  for (const preset of RANGE_PRESETS) {
    for (const fixed of [null, { from: 1_763_719_200, to: 1_763_719_500.5 }]) {
      for (const at of fixed ? [null, 1_763_719_201.25] : [null]) {
        const range = { preset, fixed, at, span: SPANS[2], compare: 'week' }
        const query = JSON.parse(JSON.stringify(toQuery(range)))
        expect(fromQuery(query)).toEqual(range)
      }
    }
  }
})

it('invalid range falls back to 5 minutes', () => {
  expect(DEFAULT_PRESET).toBe(RANGE_PRESETS[1])
  for (const query of [{}, { range: '9y' }, { from: '5', to: 'x' }, { from: '9', to: '5' }, { at: '-3' }, { from: '', to: '' }]) {
    expect(fromQuery(query as never)).toEqual({
      preset: RANGE_PRESETS[1],
      fixed: null,
      at: null,
      span: SPANS[1],
      compare: '',
    })
  }
})

it('pages have their own default range', () => {
  const day = RANGE_PRESETS.find(({ key }) => key === '24h')!
  expect(fromQuery({}, day).preset).toBe(day)
  expect(toQuery(fromQuery({}, day), {}, day)).toEqual({})
  expect(toQuery(fromQuery({ range: '5m' }, day), {}, day)).toEqual({ range: '5m' })
})

it('parameters of the page are kept', () => {
  expect(toQuery(fromQuery({}), { kinds: 'alerts', at: '5' })).toEqual({ kinds: 'alerts' })
})

it('an instant without a range is shown with its surroundings', () => {
  const at = 1_763_719_200
  expect(fromQuery({ at: String(at * 1000) })).toMatchObject({ at, fixed: { from: at - 900, to: at + 900 } })
  expect(fromQuery({ at: String(at * 1000), range: '1h' })).toMatchObject({ at, fixed: { from: at - 1_800, to: at + 1_800 } })
})
