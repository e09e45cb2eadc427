// sarama against a cluster: a JSON line for every check; {"kill": true} asks
// that a broker be killed and started again.
//
//	checks BOOTSTRAP REPLICAS RECORDS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

var (
	bootstrap = strings.Split(os.Args[1], ",")
	replicas  = number(os.Args[2])
	records   = number(os.Args[3])
	tag       = strconv.FormatInt(time.Now().UnixMilli(), 16)
	admin     sarama.ClusterAdmin
)

func number(s string) int {
	n, err := strconv.Atoi(s)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func need(condition bool, format string, args ...any) {
	if !condition {
		panic(fmt.Errorf(format, args...))
	}
}

func tell(line map[string]any) {
	text, err := json.Marshal(line)
	must(err)
	fmt.Println(string(text))
}

// check runs one check; CHECK=word in the environment chooses by name.
func check(name string, work func() string) {
	if !strings.Contains(name, os.Getenv("CHECK")) {
		return
	}
	begun := time.Now()
	type result struct {
		ok   bool
		note string
	}
	done := make(chan result, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- result{false, fmt.Sprint(r)}
			}
		}()
		done <- result{true, work()}
	}()
	var r result
	select {
	case r = <-done:
	case <-time.After(120 * time.Second):
		r = result{false, "no end after 120 s"}
	}
	tell(map[string]any{"name": name, "ok": r.ok, "note": r.note,
		"seconds": time.Since(begun).Seconds()})
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.ClientID = "sarama-check"
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	// half a minute, as long as an election may take on a slow machine
	c.Producer.Retry.Max = 300
	c.Producer.Retry.Backoff = 100 * time.Millisecond
	c.Metadata.Retry.Max = 120
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return c
}

func topic(name string, partitions int32, entries map[string]*string) string {
	name = "sarama-" + name + "-" + tag
	must(admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: partitions,
		ReplicationFactor: int16(replicas), ConfigEntries: entries}, false))
	return name
}

func values(from, count int) []string {
	out := make([]string, count)
	for i := range out {
		out[i] = strconv.Itoa(from + i)
	}
	return out
}

func produce(c *sarama.Config, messages []*sarama.ProducerMessage) {
	p, err := sarama.NewSyncProducer(bootstrap, c)
	must(err)
	defer p.Close()
	for len(messages) > 0 {
		n := min(len(messages), 500)
		must(p.SendMessages(messages[:n]))
		messages = messages[n:]
	}
}

// read gives `count` records of all partitions.
func read(name string, count int) []*sarama.ConsumerMessage {
	c, err := sarama.NewConsumer(bootstrap, config())
	must(err)
	defer c.Close()
	partitions, err := c.Partitions(name)
	must(err)
	all := make(chan *sarama.ConsumerMessage, 1000)
	for _, p := range partitions {
		pc, err := c.ConsumePartition(name, p, sarama.OffsetOldest)
		must(err)
		defer pc.AsyncClose()
		go func() {
			for m := range pc.Messages() {
				all <- m
			}
		}()
	}
	var got []*sarama.ConsumerMessage
	limit := time.After(60 * time.Second)
	for len(got) < count {
		select {
		case m := <-all:
			got = append(got, m)
		case <-limit:
			panic(fmt.Errorf("%d of %d", len(got), count))
		}
	}
	return got
}

func once(acked []string, got []*sarama.ConsumerMessage) string {
	seen := map[string]int{}
	for _, m := range got {
		seen[string(m.Value)]++
	}
	for _, v := range acked {
		need(seen[v] == 1, "%s is there %d times", v, seen[v])
	}
	return fmt.Sprintf("%d records, each once", len(acked))
}

func administration() string {
	day := "86400000"
	name := topic("admin", 3, map[string]*string{"retention.ms": &day})
	topics, err := admin.ListTopics()
	must(err)
	need(topics[name].NumPartitions == 3, "%v", topics[name])
	must(admin.CreatePartitions(name, 5, nil, false))
	hour := "3600000"
	must(admin.IncrementalAlterConfig(sarama.TopicResource, name,
		map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {
			Operation: sarama.IncrementalAlterConfigsOperationSet,
			Value:     &hour}}, false))
	entries, err := admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: name,
		ConfigNames: []string{"retention.ms"}})
	must(err)
	need(len(entries) == 1 && entries[0].Value == hour, "%v", entries)
	described, err := admin.DescribeTopics([]string{name})
	must(err)
	need(len(described[0].Partitions) == 5, "%v", described[0])
	err = admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 1,
		ReplicationFactor: 1}, false)
	need(err != nil, "created twice")
	brokers, controller, err := admin.DescribeCluster()
	must(err)
	need(len(brokers) >= replicas && controller >= 0, "%v", brokers)
	dirs, err := admin.DescribeLogDirs([]int32{brokers[0].ID()})
	must(err)
	need(len(dirs) == 1, "%v", dirs)
	must(admin.DeleteTopic(name))
	topics, err = admin.ListTopics()
	must(err)
	_, there := topics[name]
	need(!there, "still listed")
	return ""
}

func headers() string {
	name := topic("headers", 1, nil)
	at := time.UnixMilli(1700000000123)
	produce(config(), []*sarama.ProducerMessage{
		{Topic: name, Key: sarama.StringEncoder("k"),
			Value: sarama.StringEncoder("v"), Timestamp: at,
			Headers: []sarama.RecordHeader{
				{Key: []byte("a"), Value: []byte("1")},
				{Key: []byte("a"), Value: []byte{0, 255}}}},
		{Topic: name, Value: sarama.StringEncoder("no key")},
		{Topic: name, Key: sarama.StringEncoder("gone")}})
	got := read(name, 3)
	need(string(got[0].Key) == "k" && got[0].Timestamp.Equal(at), "%v", got[0])
	need(len(got[0].Headers) == 2 && string(got[0].Headers[1].Value) ==
		"\x00\xff", "%v", got[0].Headers)
	need(got[1].Key == nil && got[2].Value == nil, "nulls")
	need(got[2].Offset == 2, "offset %d", got[2].Offset)
	return ""
}

func compression(codec sarama.CompressionCodec) string {
	name := topic(codec.String(), 3, nil)
	c := config()
	c.Producer.Compression = codec
	var messages []*sarama.ProducerMessage
	acked := values(0, 2000)
	for i, v := range acked {
		acked[i] = strings.Repeat("v", 99) + v
		messages = append(messages, &sarama.ProducerMessage{Topic: name,
			Value: sarama.StringEncoder(acked[i])})
	}
	produce(c, messages)
	return once(acked, read(name, 2000))
}

func idempotentConfig() *sarama.Config {
	c := config()
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	return c
}

func idempotent() string {
	name := topic("idempotent", 6, nil)
	var messages []*sarama.ProducerMessage
	acked := values(0, records)
	for i, v := range acked {
		messages = append(messages, &sarama.ProducerMessage{Topic: name,
			Key:   sarama.StringEncoder(strconv.Itoa(i % 100)),
			Value: sarama.StringEncoder(v)})
	}
	produce(idempotentConfig(), messages)
	got := read(name, records)
	last := map[string]int{}
	for _, m := range got { // in order for each partition, so for each key
		n := number(string(m.Value))
		before, any := last[string(m.Key)]
		need(!any || n > before, "order of %s", m.Key)
		last[string(m.Key)] = n
	}
	return once(acked, got)
}

type handler struct {
	lock  sync.Mutex
	got   []*sarama.ConsumerMessage
	owned int
}

func (h *handler) Setup(s sarama.ConsumerGroupSession) error {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.owned = 0
	for _, p := range s.Claims() {
		h.owned += len(p)
	}
	return nil
}

func (h *handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h *handler) ConsumeClaim(s sarama.ConsumerGroupSession,
	claim sarama.ConsumerGroupClaim) error {
	for m := range claim.Messages() {
		h.lock.Lock()
		h.got = append(h.got, m)
		h.lock.Unlock()
		s.MarkMessage(m, "")
	}
	return nil
}

func (h *handler) state() (int, int) {
	h.lock.Lock()
	defer h.lock.Unlock()
	return len(h.got), h.owned
}

func member(group, name string) (*handler, func()) {
	g, err := sarama.NewConsumerGroup(bootstrap, group, config())
	must(err)
	h := &handler{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if g.Consume(ctx, []string{name}, h) != nil {
				time.Sleep(200 * time.Millisecond)
			}
		}
	}()
	return h, func() {
		cancel()
		<-done
		g.Close()
	}
}

func until(condition func() bool, format string, args ...any) {
	end := time.Now().Add(60 * time.Second)
	for !condition() {
		need(time.Now().Before(end), format, args...)
		time.Sleep(50 * time.Millisecond)
	}
}

func groups() string {
	name, group := topic("group", 6, nil), "sarama-group-"+tag
	one, closeOne := member(group, name)
	two, closeTwo := member(group, name)
	until(func() bool {
		_, a := one.state()
		_, b := two.state()
		return a == 3 && b == 3
	}, "no even shares")
	send := func(from int) {
		c := config()
		c.Producer.Partitioner = sarama.NewManualPartitioner
		var messages []*sarama.ProducerMessage
		for i, v := range values(from, 600) {
			messages = append(messages, &sarama.ProducerMessage{Topic: name,
				Partition: int32(i % 6), Value: sarama.StringEncoder(v)})
		}
		produce(c, messages)
	}
	send(0)
	until(func() bool {
		a, _ := one.state()
		b, _ := two.state()
		return a == 300 && b == 300
	}, "not 300 each")
	closeOne()
	send(600)
	until(func() bool { b, _ := two.state(); return b == 900 }, "not 900")
	closeTwo()
	described, err := admin.DescribeConsumerGroups([]string{group})
	must(err)
	need(described[0].State == "Empty", "state %s", described[0].State)
	offsets, err := admin.ListConsumerGroupOffsets(group,
		map[string][]int32{name: {0, 1, 2, 3, 4, 5}})
	must(err)
	for p, b := range offsets.Blocks[name] {
		need(b.Offset == 200, "partition %d at %d", p, b.Offset)
	}
	must(admin.DeleteConsumerGroupOffset(group, name, 0))
	must(admin.DeleteConsumerGroup(group))
	return ""
}

func times() string {
	name := topic("times", 1, nil)
	var messages []*sarama.ProducerMessage
	for i, v := range values(0, 100) {
		messages = append(messages, &sarama.ProducerMessage{Topic: name,
			Value:     sarama.StringEncoder(v),
			Timestamp: time.UnixMilli(1700000000000 + int64(i)*1000)})
	}
	produce(config(), messages)
	client, err := sarama.NewClient(bootstrap, config())
	must(err)
	defer client.Close()
	at, err := client.GetOffset(name, 0, 1700000050000)
	must(err)
	need(at == 50, "offset %d", at)
	must(admin.DeleteRecords(name, map[int32]int64{0: 30}))
	low, err := client.GetOffset(name, 0, sarama.OffsetOldest)
	must(err)
	need(low == 30, "log start %d", low)
	return ""
}

func killed() string {
	name := topic("killed", 6, nil)
	h, stop := member("sarama-killed-"+tag, name)
	p, err := sarama.NewSyncProducer(bootstrap, idempotentConfig())
	must(err)
	var acked []string
	end := time.Now().Add(15 * time.Second)
	for i := 0; time.Now().Before(end); i++ {
		if i == 20 {
			tell(map[string]any{"kill": true})
		}
		var messages []*sarama.ProducerMessage
		for _, v := range values(i*20, 20) {
			acked = append(acked, v)
			messages = append(messages, &sarama.ProducerMessage{Topic: name,
				Value: sarama.StringEncoder(v)})
		}
		must(p.SendMessages(messages))
		time.Sleep(20 * time.Millisecond)
	}
	must(p.Close())
	note := once(acked, read(name, len(acked)))
	until(func() bool {
		h.lock.Lock()
		defer h.lock.Unlock()
		at := map[string]bool{}
		for _, m := range h.got {
			at[fmt.Sprint(m.Partition, "/", m.Offset)] = true
		}
		return len(at) == len(acked)
	}, "the group has not read all")
	stop()
	return note
}

func main() {
	var err error
	admin, err = sarama.NewClusterAdmin(bootstrap, config())
	must(err)
	check("admin: topics, partitions, configuration", administration)
	check("keys, values, headers, timestamps", headers)
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionGZIP,
		sarama.CompressionSnappy, sarama.CompressionLZ4,
		sarama.CompressionZSTD} {
		check("compression: "+codec.String(), func() string {
			return compression(codec)
		})
	}
	check("idempotent: each record once, in order", idempotent)
	check("group: two members share, one leaves, offsets stay", groups)
	check("offsets by time; records deleted", times)
	check("while a broker is killed", killed)
}
