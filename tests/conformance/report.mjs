// Counts in the suite's terms, the tests not passed, and the comparison with the committed baseline.

import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

import { tests } from './verdicts.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const GOOD = new Set(['pass', 'yes'])

const file = profile => path.join(HERE, `baseline-${profile}.json`)

/** Test id to verdict as committed. With `create`, a missing baseline is empty instead of an error. */
export function readBaseline (profile, create) {
  if (!fs.existsSync(file(profile))) {
    if (create) return {}
    throw new Error(`there is no baseline for ${profile}: make one with tests/conformance/run --update`)
  }
  return JSON.parse(fs.readFileSync(file(profile), 'utf8'))
}

export function writeBaseline (profile, found) {
  const sorted = Object.fromEntries(Object.entries(found).sort(([a], [b]) => a < b ? -1 : 1))
  fs.writeFileSync(file(profile), JSON.stringify(sorted, null, 2) + '\n')
}

/** Test ids by how they stand against the baseline: same, better, or worse (passed before, does not now). */
export function compare (found, baseline) {
  const compared = { same: [], better: [], worse: [] }
  for (const [id, verdict] of Object.entries(found)) {
    const before = baseline[id]
    if (before === undefined || before === verdict) compared.same.push(id)
    else if (GOOD.has(before)) compared.worse.push(id)
    else compared.better.push(id)
  }
  return compared
}

/** How many tests pass; a check is answered by yes and by no. What is known not to pass counts nowhere. */
export function passing (found) {
  return Object.values(found).filter(verdict => GOOD.has(verdict) || verdict === 'no').length
}

export function report (profile, found, raw, compared, rerun) {
  const of = kind => tests.filter(test => test.kind === kind)
  const count = (kind, verdict) => of(kind).filter(({ id }) => found[id] === verdict).length
  const lines = [`\nprofile ${profile}`]
  for (const kind of ['required', 'optimal']) {
    lines.push(`  ${kind}: ${count(kind, 'pass')} of ${of(kind).length} pass`)
  }
  lines.push(`  checks: ${count('check', 'yes')} yes, ${count('check', 'no')} no, of ${of('check').length}`)
  for (const test of tests.filter(({ id }) => !GOOD.has(found[id]))) {
    const why = Array.isArray(raw[test.id]) ? raw[test.id].join(': ') : ''
    lines.push(`  ${test.kind} ${found[test.id]}: ${test.id} (${test.suite}: ${test.name}) ${why}`)
  }
  for (const id of rerun.filter(id => !compared.worse.includes(id))) lines.push(`  passed only when run again: ${id}`)
  for (const id of compared.better) lines.push(`  changed since the baseline (--update takes it over): ${id} is ${found[id]}`)
  for (const id of compared.worse) lines.push(`  FAILED: ${id} passed before, and is ${found[id]} now`)
  console.log(lines.join('\n'))
}
