// The results that the suite's package carries of other caches, counted as report.mjs counts ours, as a Markdown table.

import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

import index from 'http-cache-tests/results/index.mjs'

import { tests, verdicts } from './verdicts.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const read = file => JSON.parse(fs.readFileSync(path.join(HERE, file), 'utf8'))

function row (name, found) {
  const share = kind => {
    const of = tests.filter(test => test.kind === kind)
    return `${of.filter(({ id }) => found[id] === 'pass').length} of ${of.length}`
  }
  const untested = tests.filter(({ id, kind }) => kind !== 'check' && found[id] === 'untested').length
  return `| ${name} | ${share('required')} | ${share('optimal')} | ${untested || ''} |`
}

console.log('| cache | required | optimal | not tested |\n|---|---|---|---|')
for (const profile of ['rfc', 'edge']) console.log(row(`Larder, \`${profile}\``, read(`baseline-${profile}.json`)))
for (const { name, version, file } of index.filter(({ type }) => type !== 'browser')) {
  const raw = read(`node_modules/http-cache-tests/results/${file}`)
  console.log(row(`${name} ${version}`, verdicts(raw)))
}
