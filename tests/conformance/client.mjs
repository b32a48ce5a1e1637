// The suite's own client, against the base URL of the first argument; further arguments name single tests.
// Sends the raw results to its parent.

import fetch from 'node-fetch'

import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'

import { suites } from './verdicts.mjs'

const [base, ...ids] = process.argv.slice(2)
const chosen = suites.map(suite => ({
  ...suite,
  tests: suite.tests
    .filter(test => ids.length === 0 || ids.includes(test.id))
    .map(test => process.env.DUMP ? { ...test, dump: true } : test)
}))

await runTests(chosen, fetch, false, base)
await new Promise(resolve => process.send(getResults(), resolve))
process.disconnect()
