// The suite's tests, and its own judgement of their results, in words.

import { determineTestResult } from 'http-cache-tests/lib/display.mjs'
import published from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'

/** The suite's collections, without tests that are for browsers only. */
export const suites = [...published, surrogate].map(suite => ({
  ...suite,
  tests: suite.tests.filter(test => test.browser_only !== true)
}))

/** Every test, in the suite's order, with its kind: required, optimal or check. */
export const tests = suites.flatMap(suite =>
  suite.tests.map(test => ({ ...test, kind: test.kind ?? 'required', suite: suite.name })))

// The suite names its verdicts by symbols; these are the names that its source gives them.
const WORDS = new Map([
  ['✅', 'pass'],
  ['⛔️', 'fail'],
  ['⚠️', 'optional_fail'],
  ['Y', 'yes'],
  ['N', 'no'],
  ['🔹', 'setup_fail'],
  ['⁉️', 'harness_fail'],
  ['⚪️', 'dependency_fail'],
  ['↻', 'retry'],
  ['-', 'untested']
])

/** Test id to verdict. */
export function verdicts (raw) {
  return Object.fromEntries(tests.map(({ id }) => [id, WORDS.get(determineTestResult(suites, id, raw)[2])]))
}
