// kafkajs 2.2.4 against a cluster.
//   node kafkajs.mjs BOOTSTRAP REPLICAS RECORDS
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import {
  bootstrap, check, killBroker, need, once, records, replicas, sleep, tag, until
} from './checks.mjs'

const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes } =
  kafkajs
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
const kafka = new Kafka({
  clientId: 'kafkajs-check', brokers: bootstrap,
  logLevel: Number(process.env.KAFKAJS_LOG ?? 0),
  logCreator: () => entry => console.error(JSON.stringify(entry)),
  retry: { retries: 20, maxRetryTime: 3000 }
})
const admin = kafka.admin()
await admin.connect()

async function topic (name, partitions = 3, configEntries = []) {
  name = `kafkajs-${name}-${tag}`
  const made = await admin.createTopics({
    waitForLeaders: true,
    topics: [{ topic: name, numPartitions: partitions,
      replicationFactor: replicas, configEntries }]
  })
  need(made, `${name} was not created`)
  return name
}

async function produce (name, messages, options = {}, settings = {}) {
  const producer = kafka.producer(settings)
  await producer.connect()
  const told = []
  for (let i = 0; i < messages.length; i += 500) {
    told.push(...await producer.send({
      topic: name, acks: -1, messages: messages.slice(i, i + 500), ...options
    }))
  }
  await producer.disconnect()
  return told
}

async function consumer (groupId, name, got, settings = {}) {
  const c = kafka.consumer({ groupId, sessionTimeout: 6000,
    heartbeatInterval: 500, rebalanceTimeout: 10000, ...settings })
  await c.connect()
  await c.subscribe({ topics: [name], fromBeginning: true })
  await c.run({ eachMessage: async ({ partition, message }) => {
    got.push({ partition, ...message })
  } })
  return c
}

async function read (name, count) {
  const got = []
  const c = await consumer(`read-${name}-${Math.random()}`, name, got)
  await until(() => got.length >= count, () => `${got.length} of ${count}`)
  await c.disconnect()
  return got
}

await check('admin: topics, partitions, configuration', async () => {
  const name = await topic('admin', 3,
    [{ name: 'retention.ms', value: '86400000' }])
  need((await admin.listTopics()).includes(name), 'not listed')
  await admin.createPartitions({
    topicPartitions: [{ topic: name, count: 5 }] })
  const { topics } = await admin.fetchTopicMetadata({ topics: [name] })
  need(topics[0].partitions.length === 5, JSON.stringify(topics))
  need(topics[0].partitions.every(p => p.replicas.length === replicas),
    'replicas')
  await admin.alterConfigs({ validateOnly: false, resources: [{
    type: ConfigResourceTypes.TOPIC, name,
    configEntries: [{ name: 'retention.ms', value: '3600000' }] }] })
  const described = await admin.describeConfigs({ includeSynonyms: true,
    resources: [{ type: ConfigResourceTypes.TOPIC, name,
      configNames: ['retention.ms'] }] })
  need(described.resources[0].configEntries[0].configValue === '3600000',
    JSON.stringify(described))
  let refused = false
  await admin.createTopics({ topics: [{ topic: name }] }).then(
    made => { refused = made === false }, () => { refused = true })
  need(refused, 'created twice')
  await admin.deleteTopics({ topics: [name] })
  need(!(await admin.listTopics()).includes(name), 'still listed')
  const cluster = await admin.describeCluster()
  need(cluster.brokers.length >= replicas && cluster.controller !== null,
    JSON.stringify(cluster))
})

await check('keys, values, headers, timestamps', async () => {
  const name = await topic('headers', 1)
  const at = 1700000000123
  await produce(name, [
    { key: 'k', value: 'v', timestamp: String(at),
      headers: { a: '1', b: Buffer.from([0, 255]), list: ['x', 'y'] } },
    { key: null, value: 'no key' }, { key: 'gone', value: null },
    { key: '', value: '' }])
  const got = await read(name, 4)
  need(got[0].key.toString() === 'k' && got[0].value.toString() === 'v' &&
    got[0].timestamp === String(at), JSON.stringify(got[0]))
  need(got[0].headers.a.toString() === '1' &&
    got[0].headers.b.equals(Buffer.from([0, 255])) &&
    got[0].headers.list.map(String).join() === 'x,y', 'headers')
  need(got[1].key === null && got[2].value === null, 'nulls')
  need(got[3].key.length === 0 && got[3].value.length === 0, 'empty ones')
  need(got.map(m => m.offset).join() === '0,1,2,3', 'offsets')
})

for (const [word, type] of [['gzip', CompressionTypes.GZIP],
  ['snappy', CompressionTypes.Snappy]]) {
  await check(`compression: ${word}`, async () => {
    const name = await topic(word)
    const values = Array.from({ length: 2000 }, (_, i) => 'v'.repeat(99) + i)
    await produce(name, values.map(value => ({ value })),
      { compression: type })
    return once(values, (await read(name, 2000)).map(m => String(m.value)))
  })
}

await check('idempotent: each record once, in order', async () => {
  const name = await topic('idempotent', 6)
  const messages = Array.from({ length: records }, (_, i) => (
    { key: `k${i % 100}`, value: String(i) }))
  await produce(name, messages, {}, { idempotent: true, maxInFlightRequests: 1 })
  const got = await read(name, records)
  const last = new Map()
  got.sort((a, b) => a.partition - b.partition || a.offset - b.offset)
  for (const m of got) {
    const key = String(m.key)
    need(Number(m.value) > (last.get(key) ?? -1), `order of ${key}`)
    last.set(key, Number(m.value))
  }
  return once(messages.map(m => m.value), got.map(m => String(m.value)))
})

await check('group: three members share, one leaves, offsets stay', async () => {
  const name = await topic('group', 6)
  const groupId = `kafkajs-group-${tag}`
  const gots = [[], [], []]
  const members = await Promise.all(gots.map(g => consumer(groupId, name, g)))
  await until(async () => {
    const { groups } = await admin.describeGroups([groupId])
    return groups[0].state === 'Stable' && groups[0].members.length === 3
  }, 'three members')
  const send = from => produce(name, Array.from({ length: 600 }, (_, i) => (
    { partition: i % 6, value: String(from + i) })))
  await send(0)
  const all = () => gots.flat().map(m => String(m.value))
  await until(() => all().length >= 600, () => `${all().length} of 600`)
  need(gots.every(g => g.length === 200),
    `shares: ${gots.map(g => g.length)}`)
  await members[0].disconnect()
  await send(600)
  await until(() => new Set(all()).size === 1200,
    () => `${new Set(all()).size} of 1200`)
  await Promise.all(members.slice(1).map(m => m.disconnect()))
  const offsets = await admin.fetchOffsets({ groupId, topics: [name] })
  need(offsets[0].partitions.every(p => p.offset === '200'),
    JSON.stringify(offsets))
  need((await admin.listGroups()).groups.some(g => g.groupId === groupId),
    'not listed')
  await admin.setOffsets({ groupId, topic: name,
    partitions: [{ partition: 0, offset: '150' }] })
  const again = []
  const c = await consumer(groupId, name, again)
  await until(() => again.length >= 50, () => `${again.length} of 50`)
  await sleep(500)
  await c.disconnect()
  need(again.length === 50, `${again.length} instead of 50`)
  await admin.deleteGroups([groupId])
})

await check('offsets by time; records deleted', async () => {
  const name = await topic('times', 1)
  await produce(name, Array.from({ length: 100 }, (_, i) => (
    { value: String(i), timestamp: String(1700000000000 + i * 1000) })))
  const at = await admin.fetchTopicOffsetsByTimestamp(name, 1700000050000)
  need(at[0].offset === '50', JSON.stringify(at))
  await admin.deleteTopicRecords({ topic: name,
    partitions: [{ partition: 0, offset: '30' }] })
  const [range] = await admin.fetchTopicOffsets(name)
  need(range.low === '30' && range.high === '100', JSON.stringify(range))
})

await check('while a broker is killed', async () => {
  const name = await topic('killed', 6)
  const got = []
  const c = await consumer(`kafkajs-killed-${tag}`, name, got)
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const acked = []
  const begun = Date.now()
  for (let i = 0; Date.now() < begun + 15000; i++) {
    if (i === 20) killBroker()
    const values = Array.from({ length: 20 }, (_, k) => String(i * 20 + k))
    // one partition in a call: kafkajs never sends again what moves to a
    // broker that has answered its part of the same call, and reports success
    await producer.send({ topic: name, acks: -1,
      messages: values.map(value => ({ value, partition: i % 6 })) })
    acked.push(...values)
    await sleep(20)
  }
  await producer.disconnect()
  once(acked, (await read(name, acked.length)).map(m => String(m.value)))
  const values = () => new Set(got.map(m => String(m.value)))
  await until(() => values().size >= acked.length, () => `the consumer lacks ${
    acked.filter(v => !values().has(v))} of ${acked.length}`)
  await c.disconnect()
  const places = new Map(got.map(m => [m.partition + '/' + m.offset,
    String(m.value)]))
  return once(acked, [...places.values()])
})

await admin.disconnect()
process.exit(0)
