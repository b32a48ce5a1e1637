// One run: the suite's origin, a node in one profile in front of it, and the suite's client, each a process.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const SUITE = path.join(HERE, 'node_modules/http-cache-tests')
const START_MS = 20_000

/** The suite's raw results by test id: `true`, or `[kind of error, message]`. */
export async function runProfile (binary, profile, { ids = [], dump = false } = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), `larder-conformance-${profile}-`))
  const children = []
  try {
    const origin = await startOrigin(children, dir, dump)
    const node = await startNode(children, binary, dir, profile, origin)
    return await runClient(children, node, ids, dump)
  } finally {
    children.forEach(child => child.kill('SIGKILL'))
    fs.rmSync(dir, { recursive: true, force: true })
  }
}

async function startOrigin (children, dir, dump) {
  const child = spawn(process.execPath, ['server/server.mjs'], {
    cwd: SUITE,
    env: {
      ...process.env,
      npm_config_protocol: 'http',
      npm_config_port: '0',
      npm_config_pidfile: path.join(dir, 'origin.pid')
    },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  children.push(child)
  const port = await firstMatch(child, child.stdout, /Listening on .*:(\d+)\/$/, dump)
  return `http://127.0.0.1:${port}`
}

async function startNode (children, binary, dir, profile, origin) {
  const config = path.join(dir, 'larder.toml')
  fs.writeFileSync(config, `
[[listen]]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
path = "${dir}/store"
memory = "64MiB"
[[site]]
name = "conformance"
hosts = ["*"]
origin = "suite"
[site.cache]
profile = "${profile}"
[[origin]]
name = "suite"
servers = [{ url = "${origin}" }]
`)
  const { RUST_LOG, ...env } = process.env
  const child = spawn(binary, ['serve', '--config', config], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  children.push(child)
  const address = await firstMatch(child, child.stderr, /listening on (http:\/\/[0-9.:]+)/)
  return address
}

/** The client runs in a process of its own: the suite keeps its state in modules. */
function runClient (children, base, ids, dump) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--no-warnings', path.join(HERE, 'client.mjs'), base, ...ids], {
      env: { ...process.env, DUMP: dump ? '1' : '' },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc']
    })
    children.push(child)
    let results
    child.on('message', message => { results = message })
    child.on('error', reject)
    child.on('exit', code => results ? resolve(results) : reject(new Error(`the suite's client ended with ${code}`)))
  })
}

/** Reads lines until one matches; goes on reading, so that the child never blocks on a full pipe. */
function firstMatch (child, stream, pattern, echo = false) {
  return new Promise((resolve, reject) => {
    const seen = []
    const fail = why => reject(new Error(`${child.spawnargs.join(' ')}: ${why}\n${seen.join('\n')}`))
    const timer = setTimeout(() => fail(`not ready after ${START_MS} ms`), START_MS)
    child.on('error', error => fail(error.message))
    child.on('exit', code => fail(`ended with ${code}`))
    readline.createInterface({ input: stream }).on('line', line => {
      if (echo) console.log(line)
      const plain = line.replace(/\u001b\[[0-9;]*m/g, '')
      if (seen.length < 100) seen.push(plain)
      const match = pattern.exec(plain)
      if (match) {
        clearTimeout(timer)
        resolve(match[1])
      }
    })
  })
}
