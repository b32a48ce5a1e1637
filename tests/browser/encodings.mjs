// The shop from `larder serve` in headless Chromium, once in each encoding and once in none: every file arrives as it is on
// disk, in the encoding that was made, and the page looks the same. And curl --compressed, which decodes for itself. Then versions of
// a script as differences from the one before (RFC 9842).

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { chromium } from 'playwright-core'

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
const ASSETS = path.join(ROOT, 'assets-sample')
const READY_MS = 20_000
const MADE_MS = 30_000
const COMPRESSED = /\.(html|css|js|json|svg|xml|txt|webmanifest)$/
const MIN_BYTES = 512
const BROWSER_ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'
]

/** `LARDER_BIN`, else the newest that cargo built. */
function program () {
  if (process.env.LARDER_BIN) return path.resolve(process.env.LARDER_BIN)
  const target = process.env.CARGO_TARGET_DIR || path.join(ROOT, 'target')
  const built = ['debug', 'release']
    .map(profile => path.join(target, profile, 'larder'))
    .filter(file => fs.existsSync(file))
    .sort((a, b) => fs.statSync(b).mtimeMs - fs.statSync(a).mtimeMs)
  if (built.length === 0) throw new Error(`no larder in ${target}: run cargo build first, or set LARDER_BIN`)
  return built[0]
}

/** A node that makes these encodings of the shop; `lines` are more of its site, `assets` another folder. */
async function start (home, encodings, { lines = '', assets = ASSETS } = {}) {
  const folder = fs.mkdtempSync(path.join(home, 'node-'))
  const config = path.join(folder, 'larder.toml')
  fs.writeFileSync(config, `
[[listen]]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
path = "${folder}/store"
disk = "0"
memory = "64MiB"
[[site]]
name = "shop"
hosts = ["*"]
origin = "shop"
[site.cache]
override_ttl = "1d"
[site.compress]
encodings = ${JSON.stringify(encodings)}
${lines}
[[origin]]
name = "shop"
dir = "${assets}"
`)
  const child = spawn(program(), ['serve', '--config', config], { stdio: ['ignore', 'ignore', 'pipe'] })
  const node = { child, log: '' }
  child.stderr.on('data', data => { node.log += data })
  const deadline = Date.now() + READY_MS
  while (!/\bready\b/.test(node.log)) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`it did not start\n${node.log}`)
    await sleep(20)
  }
  node.url = /listening on (http:\S+)/.exec(node.log)[1].replace('127.0.0.1', 'localhost')
  return node
}

/** Files of the shop as the page asks for them, without what follows the path. */
function fileOf (url) {
  const name = decodeURIComponent(new URL(url).pathname)
  return path.join(ASSETS, name.endsWith('/') ? `${name}index.html` : name)
}

/** What Chromium got of the shop: each response's coding, whether its content is the file, and a picture of the page. */
async function visit (browser, url) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 } })
  const page = await context.newPage()
  // The page counts down to the event.
  await page.clock.setFixedTime(new Date('2026-01-01T12:00:00Z'))
  const faults = []
  page.on('pageerror', error => faults.push(`page: ${error.message}`))
  page.on('requestfailed', request => faults.push(`failed: ${request.url()} ${request.failure()?.errorText}`))
  const answers = []
  page.on('response', response => answers.push(response))
  await page.goto(url, { waitUntil: 'networkidle' })
  await page.addStyleTag({ content: 'video { visibility: hidden !important }' })
  await page.evaluate(() => document.fonts.ready.then(() => true))
  // What is in view; the others are asked for when they come near.
  const missing = () => [...document.images]
    .filter(image => image.getBoundingClientRect().top < window.innerHeight)
    .filter(image => !(image.complete && image.naturalWidth > 0)).map(image => image.src)
  await page.waitForFunction(`(${missing})().length === 0`, null, { timeout: MADE_MS, polling: 100 }).catch(() => {})
  faults.push(...(await page.evaluate(missing)).map(source => `image not shown: ${source}`))
  const picture = await page.screenshot({ animations: 'disabled', caret: 'hide' })
  const seen = new Map()
  for (const response of answers) {
    const file = fileOf(response.url())
    if (response.status() !== 200 || !COMPRESSED.test(file) || !fs.existsSync(file)) continue
    const content = fs.readFileSync(file)
    if (content.length < MIN_BYTES) continue
    if (!content.equals(await response.body())) faults.push(`another content: ${response.url()}`)
    seen.set(response.url(), (await response.allHeaders())['content-encoding'] ?? 'identity')
  }
  await context.close()
  return { faults, seen, picture }
}

/** Visits until everything comes in the encoding that is made, and looks like `plain`: a picture may be taken in mid-painting. */
async function visitUntil (browser, url, encoding, plain) {
  const deadline = Date.now() + MADE_MS
  for (;;) {
    const visited = await visit(browser, url)
    const others = [...visited.seen].filter(([, coding]) => coding !== encoding)
    const isSame = !plain || plain.equals(visited.picture)
    if ((others.length === 0 && isSame) || visited.faults.length > 0) return visited
    if (Date.now() > deadline) {
      visited.faults.push(...others.map(([url, coding]) => `${coding}, not ${encoding}: ${url}`))
      return visited
    }
    await sleep(500)
  }
}

/** Everything that is wrong with what curl --compressed makes of a file. */
function curl (url, encoding, seen) {
  const faults = []
  for (const target of seen.keys()) {
    const { stdout, status } = spawnSync('curl', ['-s', '--compressed', '-H', `Accept-Encoding: ${encoding}`, target], { maxBuffer: 1 << 26 })
    if (status !== 0) faults.push(`curl ended with ${status}: ${target}`)
    if (!stdout.equals(fs.readFileSync(fileOf(target)))) faults.push(`not the file: ${target}`)
  }
  return faults
}

/** Has `curl` ask for a path with a dictionary, until it comes in this coding. */
async function awaitDelta (url, dictionary, coding) {
  const hash = createHash('sha256').update(dictionary).digest('base64')
  const fields = ['-H', `Accept-Encoding: ${coding}`, '-H', `Available-Dictionary: :${hash}:`]
  const deadline = Date.now() + MADE_MS
  while (Date.now() < deadline) {
    const { stdout } = spawnSync('curl', ['-s', ...fields, '-D', '-', '-o', '/dev/null', url])
    if (new RegExp(`^content-encoding: ${coding}\\r?$`, 'mi').test(stdout)) return []
    await sleep(100)
  }
  return [`no ${coding} of ${url}`]
}

/** Versions of a script under one pattern: a browser that has one gets the next as the difference, and runs it. */
async function withDictionary (browser, home, encoding, coding) {
  const assets = path.join(home, `versions-${coding}`)
  fs.mkdirSync(path.join(assets, 'js'), { recursive: true })
  const script = fs.readFileSync(path.join(ASSETS, 'js/catalogue.js'), 'utf8')
  const versions = [1, 2, 3, 4].map(n => Buffer.from(`globalThis.version = ${n};${script}`))
  for (const n of [1, 2, 3, 4]) {
    fs.writeFileSync(path.join(assets, `js/app.${n}.js`), versions[n - 1])
    const page = `<!doctype html><link rel="icon" href="data:,"><title>${n}</title><script type="module" src="/js/app.${n}.js"></script>`
    fs.writeFileSync(path.join(assets, `${n}.html`), page)
  }
  // Of the scripts alone: a browser takes the newest that matches, which else were the page.
  const lines = `dictionaries = true
[[site.rule]]
path = ["/js/*"]
headers = { response = { set = { use-as-dictionary = 'match="/js/app.*.js"', cache-control = "max-age=600" } } }`
  const node = await start(home, [encoding], { lines, assets })
  const context = await browser.newContext()
  let got = {}
  const faults = []
  try {
    const page = await context.newPage()
    const session = await context.newCDPSession(page)
    await session.send('Network.enable')
    const ids = new Map()
    const bytes = new Map()
    session.on('Network.responseReceived', ({ requestId, response }) => ids.set(new URL(response.url).pathname, { requestId, response }))
    session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => bytes.set(requestId, encodedDataLength))
    await page.goto(`${node.url}/1.html`, { waitUntil: 'networkidle' })
    // A browser writes its dictionaries when it has time: the second version may come before that.
    for (const n of [2, 3, 4]) {
      await sleep(1000)
      faults.push(...await awaitDelta(`${node.url}/js/app.${n}.js`, versions[n - 2], coding))
      await page.goto(`${node.url}/${n}.html`, { waitUntil: 'networkidle' })
      if (await page.evaluate('globalThis.version') !== n) faults.push(`version ${n} did not run`)
      const { requestId, response } = ids.get(`/js/app.${n}.js`)
      const field = name => Object.entries(response.headers).find(([key]) => key.toLowerCase() === name)?.[1]
      got = { coding: field('content-encoding'), vary: field('vary'), bytes: bytes.get(requestId) }
      if (got.coding === coding) break
    }
    if (got.coding !== coding) faults.push(`${got.coding}, not ${coding}`)
    if (!/available-dictionary/i.test(got.vary ?? '')) faults.push(`Vary: ${got.vary}`)
  } finally {
    await context.close()
    node.child.kill('SIGKILL')
  }
  result(`a script in ${coding}: ${got.bytes} bytes with its head, of ${versions[0].length}`, faults)
}

let passed = 0
let failed = 0
function result (name, faults) {
  if (faults.length > 0) failed += 1
  else passed += 1
  console.log(`${faults.length === 0 ? 'ok' : 'FAILED'}: ${name}`)
  faults.forEach(fault => console.log(`  ${fault}`))
}

const home = fs.mkdtempSync(path.join(os.tmpdir(), 'larder-encodings-'))
let browser
let node
try {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: BROWSER_ARGUMENTS,
    env: { ...process.env, HOME: home }
  })
  let plain
  for (const encoding of ['identity', 'br', 'zstd', 'gzip']) {
    node = await start(home, encoding === 'identity' ? [] : [encoding])
    const visited = await visitUntil(browser, node.url, encoding, plain)
    if (visited.seen.size < 3) visited.faults.push(`only ${visited.seen.size} compressible files were seen`)
    plain ??= visited.picture
    if (!plain.equals(visited.picture)) visited.faults.push('the page looks different')
    result(`the shop in ${encoding}: ${visited.seen.size} files, the same page`, visited.faults)
    if (encoding !== 'identity') result(`curl --compressed in ${encoding}`, curl(node.url, encoding, visited.seen))
    node.child.kill('SIGKILL')
  }
  await withDictionary(browser, home, 'br', 'dcb')
  await withDictionary(browser, home, 'zstd', 'dcz')
} catch (error) {
  result('the run itself', [error.stack])
} finally {
  await browser?.close()
  node?.child.kill('SIGKILL')
  fs.rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
}
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
