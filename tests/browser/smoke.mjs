// Starts `larder demo`, loads the shop as a phone and as a desktop, and tries the first command that the demo prints.

import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { chromium } from 'playwright-core'

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
const ASSETS = path.join(ROOT, 'assets-sample')
const START_MS = 20_000
const STOP_MS = 10_000
const IMAGES_MS = 10_000
const SCREENS = [
  { name: 'phone', viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
  { name: 'desktop', viewport: { width: 1440, height: 900 } }
]
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

/** The demo, ready, with its store below `home`. */
async function startDemo (home) {
  const { XDG_CACHE_HOME, RUST_LOG, ...env } = process.env
  const args = ['demo', '--assets', ASSETS, '--port', '0', '--tls-port', '0', '--admin-port', '0']
  const child = spawn(program(), args, { env: { ...env, HOME: home }, stdio: ['ignore', 'pipe', 'pipe'] })
  const demo = { child, printed: '', log: '' }
  child.stdout.on('data', data => { demo.printed += data })
  child.stderr.on('data', data => { demo.log += data })
  const deadline = Date.now() + START_MS
  while (!(/\bready\b/.test(demo.log) && demo.printed.includes('Ctrl-C'))) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`the demo did not start\n${demo.log}`)
    await sleep(20)
  }
  return demo
}

/** SIGTERM; the exit code, or why there is none. */
async function stopDemo ({ child }) {
  const exited = new Promise(resolve => child.on('exit', code => resolve(code)))
  child.kill('SIGTERM')
  const code = await Promise.race([exited, sleep(STOP_MS, 'still running', { ref: false })])
  if (code === 'still running') child.kill('SIGKILL')
  return code
}

/** Everything that is wrong with the shop on this screen. */
async function visit (browser, url, screen) {
  const faults = []
  const { name, ...options } = screen
  const context = await browser.newContext({ ...options, ignoreHTTPSErrors: true })
  const page = await context.newPage()
  page.on('console', message => {
    if (message.type() === 'error') faults.push(`console: ${message.text()} ${message.location().url}`)
  })
  page.on('pageerror', error => faults.push(`page: ${error.message}`))
  page.on('requestfailed', request => faults.push(`failed: ${request.url()} ${request.failure()?.errorText}`))
  // The protocol of a response is told by the debugging protocol only.
  const session = await context.newCDPSession(page)
  await session.send('Network.enable')
  let responses = 0
  session.on('Network.responseReceived', ({ response }) => {
    if (!response.url.startsWith('https:')) return
    responses += 1
    if (response.protocol !== 'h2') faults.push(`${response.protocol}, not h2: ${response.url}`)
    if (response.status >= 400) faults.push(`${response.status}: ${response.url}`)
  })
  await page.goto(url, { waitUntil: 'networkidle' })
  await scrollThrough(page)
  const { broken, overflow } = await page.evaluate(() => ({
    broken: [...document.images].filter(image => !(image.complete && image.naturalWidth > 0)).map(image => image.src),
    overflow: document.documentElement.scrollWidth - window.innerWidth
  }))
  faults.push(...broken.map(source => `image not shown: ${source}`))
  if (overflow > 0) faults.push(`wider than the screen by ${overflow} pixels`)
  if (responses < 2) faults.push(`only ${responses} responses were seen`)
  if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`) })
  await context.close()
  return { faults, responses }
}

/** To the end of the page, so that lazy images are asked for, and until they are there. */
async function scrollThrough (page) {
  await page.evaluate(async () => {
    for (let y = 0; y < document.documentElement.scrollHeight; y += window.innerHeight / 2) {
      window.scrollTo({ top: y, behavior: 'instant' })
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  })
  const shown = () => [...document.images].every(image => image.complete && image.naturalWidth > 0)
  // Which are not shown is told by the caller.
  await page.waitForFunction(shown, null, { timeout: IMAGES_MS }).catch(() => {})
}

/** Everything that is wrong with the two answers to the first command that the demo prints. */
async function tryPrintedCurl (printed) {
  const command = /^ *(curl -i (http:\S+))$/m.exec(printed)
  if (!command) return ['the demo prints no curl command']
  const file = fs.readFileSync(path.join(ASSETS, new URL(command[2]).pathname))
  const faults = []
  let head = ''
  for (const which of ['first', 'second']) {
    const { stdout, status } = spawnSync(command[1].split(' ')[0], ['-s', ...command[1].split(' ').slice(1)])
    const end = stdout.indexOf('\r\n\r\n')
    head = stdout.subarray(0, end).toString('latin1')
    if (status !== 0) faults.push(`the ${which}: curl ended with ${status}`)
    if (!/^HTTP\/1\.1 200 /.test(head)) faults.push(`the ${which}: ${head.split('\r\n')[0]}`)
    if (!stdout.subarray(end + 4).equals(file)) faults.push(`the ${which} is not the file byte for byte`)
    // Nobody types it again faster.
    await sleep(100)
  }
  if (!/^cache-status: .*; *hit/mi.test(head)) faults.push(`the second is no hit: ${/^cache-status:.*/mi.exec(head)}`)
  if (!/^age: \d+\r?$/mi.test(head)) faults.push('the second has no Age')
  return faults
}

let passed = 0
let failed = 0
function result (name, faults) {
  if (faults.length === 0) passed += 1
  else failed += 1
  console.log(`${faults.length === 0 ? 'ok' : 'FAILED'}: ${name}`)
  faults.forEach(fault => console.log(`  ${fault}`))
}

const home = fs.mkdtempSync(path.join(os.tmpdir(), 'larder-browser-'))
let demo
let browser
try {
  demo = await startDemo(home)
  result('the printed curl, twice: the second answer is a hit with Age, and both are the file', await tryPrintedCurl(demo.printed))
  const url = /https:\/\/localhost:\d+\//.exec(demo.printed)[0]
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: BROWSER_ARGUMENTS,
    env: { ...process.env, HOME: home }
  })
  for (const screen of SCREENS) {
    const { faults, responses } = await visit(browser, url, screen)
    result(`the shop on a ${screen.name}, ${responses} responses, all over h2, nothing wrong in the console`, faults)
  }
  await browser.close()
  const code = await stopDemo(demo)
  result('SIGTERM ends the demo', code === 0 ? [] : [`it ended with ${code}`])
} catch (error) {
  result('the run itself', [error.stack])
} finally {
  await browser?.close()
  demo?.child.kill('SIGKILL')
  fs.rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
}
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
