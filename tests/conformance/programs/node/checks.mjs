// What the Node programs share: a JSON line for every check, and a broker
// killed when a check asks for it ({"kill": true} is a request to the driver,
// which kills one and starts it again).
import { setTimeout as sleep } from 'node:timers/promises'

export { sleep }
export const [bootstrap, replicas, records] = [
  process.argv[2].split(','), Number(process.argv[3]), Number(process.argv[4])]
export const tag = Date.now().toString(16)

export function need (condition, text) {
  if (!condition) throw new Error(text)
}

export function killBroker () {
  console.log(JSON.stringify({ kill: true }))
}

export async function until (condition, text, seconds = 60) {
  const end = Date.now() + seconds * 1000
  while (!(await condition())) {
    need(Date.now() < end, typeof text === 'function' ? text() : text)
    await sleep(50)
  }
}

// CHECK=word in the environment runs only those with it in their names.
export async function check (name, work, seconds = 120) {
  if (!name.includes(process.env.CHECK ?? '')) return
  const begun = Date.now()
  let note = ''
  let ok = true
  const limit = new AbortController()
  try {
    note = await Promise.race([work(), sleep(
      seconds * 1000, null, { signal: limit.signal }).then(() => {
      throw new Error(`no end after ${seconds} s`)
    })]) ?? ''
  } catch (e) {
    ok = false
    note = e.stack ?? String(e)
    for (let inner = e; inner; inner = inner.errors?.at(-1) ?? inner.cause) {
      note = `${inner.message} ${inner.apiId ?? inner.code ?? ''}\n${note}`
    }
  }
  limit.abort()
  console.log(JSON.stringify({
    name, ok, note: String(note).slice(0, 3000),
    seconds: (Date.now() - begun) / 1000
  }))
}

// Every acknowledged value is there, and none twice.
export function once (acked, got) {
  const seen = new Map()
  for (const v of got) seen.set(v, (seen.get(v) ?? 0) + 1)
  const lost = acked.filter(v => !seen.has(v))
  const twice = acked.filter(v => seen.get(v) > 1)
  need(lost.length === 0, `${lost.length} lost: ${lost.slice(0, 5)}`)
  need(twice.length === 0, `${twice.length} twice: ${twice.slice(0, 5)}`)
  return `${acked.length} records, each once`
}
