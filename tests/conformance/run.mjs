// Runs the suite in both profiles, prints what it found and compares with the baselines.

import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { verdicts } from './verdicts.mjs'
import { runProfile } from './profile.mjs'
import { compare, passing, readBaseline, report, writeBaseline } from './report.mjs'

const USAGE = `Usage: tests/conformance/run [--update] [--profile rfc|edge]... [--id TEST]...

  --update         take today's results as the new baselines
  --profile NAME   only this profile (default: both, at the same time)
  --id TEST        only this test, with everything that was sent and received

LARDER_BIN names the program; without it, the newest of cargo's dev and release builds is used.
`

const PROFILES = ['rfc', 'edge']

/** The program under test: `LARDER_BIN`, else the newest that cargo built. */
function program () {
  if (process.env.LARDER_BIN) return path.resolve(process.env.LARDER_BIN)
  const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
  const target = process.env.CARGO_TARGET_DIR || path.join(root, 'target')
  const built = ['debug', 'release']
    .map(profile => path.join(target, profile, 'larder'))
    .filter(file => fs.existsSync(file))
    .sort((a, b) => fs.statSync(b).mtimeMs - fs.statSync(a).mtimeMs)
  if (built.length === 0) throw new Error(`no larder in ${target}: run cargo build first, or set LARDER_BIN`)
  return built[0]
}

/** One profile: run, run again what regressed, compare. Returns `{ passed, failed }`. */
async function conformance (binary, profile, update) {
  const baseline = readBaseline(profile, update)
  const raw = await runProfile(binary, profile)
  let found = verdicts(raw)
  const first = compare(found, baseline)
  if (first.worse.length > 0) {
    // The suite measures seconds on the wall clock, so that a busy machine can spoil a test; a real fault stays.
    const again = await runProfile(binary, profile, { ids: first.worse })
    Object.assign(raw, again)
    found = verdicts(raw)
  }
  const compared = compare(found, baseline)
  report(profile, found, raw, compared, first.worse)
  if (update) writeBaseline(profile, found)
  return { passed: passing(found), failed: update ? 0 : compared.worse.length }
}

async function main () {
  const { values } = parseArgs({
    options: {
      update: { type: 'boolean', default: false },
      profile: { type: 'string', multiple: true, default: PROFILES },
      id: { type: 'string', multiple: true },
      help: { type: 'boolean', short: 'h', default: false }
    }
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const unknown = values.profile.find(profile => !PROFILES.includes(profile))
  if (unknown !== undefined) throw new Error(`there is no profile ${unknown}, only ${PROFILES.join(' and ')}`)
  const binary = program()
  if (values.id) {
    for (const profile of values.profile) {
      const raw = await runProfile(binary, profile, { ids: values.id, dump: true })
      console.log(`${profile}: ${JSON.stringify(raw)}`)
    }
    return 0
  }
  console.log(`conformance of ${binary}`)
  const counts = await Promise.all(values.profile.map(profile => conformance(binary, profile, values.update)))
  const sum = key => counts.reduce((total, count) => total + count[key], 0)
  console.log(`\n${sum('passed')} passed, ${sum('failed')} failed`)
  return sum('failed') === 0 ? 0 : 1
}

main().then(code => { process.exitCode = code }, error => {
  console.error(`conformance: ${error.message}`)
  process.exitCode = 2
})
