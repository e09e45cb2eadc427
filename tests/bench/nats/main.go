// Publishes to replicated JetStream streams and prints one JSON object: rate
// and percentiles of the time until a message is acknowledged. Every stream
// has its own connection and as many messages outstanding as are asked for.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "nats load: %s: %v\n", what, err)
	os.Exit(1)
}

// One stream's share of the load; gives the latencies in microseconds.
func publish(url, subject string, n, size, outstanding int, rate float64) []float64 {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		fail("connect", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(outstanding))
	if err != nil {
		fail("jetstream", err)
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte('!' + (i*2654435761>>7)%90)
	}
	type pending struct {
		begun  time.Time
		future jetstream.PubAckFuture
	}
	waiting := make(chan pending, outstanding)
	latencies := make([]float64, 0, n)
	done := make(chan struct{})
	go func() {
		for p := range waiting {
			select {
			case <-p.future.Ok():
				us := float64(time.Since(p.begun).Microseconds())
				latencies = append(latencies, us)
			case err := <-p.future.Err():
				fail("publish", err)
			}
		}
		close(done)
	}()
	begun := time.Now()
	for i := 0; i < n; i++ {
		if rate > 0 {
			due := begun.Add(time.Duration(float64(i) / rate * 1e9))
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
		}
		at := time.Now()
		future, err := js.PublishAsync(subject, payload,
			jetstream.WithStallWait(60*time.Second))
		if err != nil {
			fail("publish", err)
		}
		waiting <- pending{at, future}
	}
	close(waiting)
	<-done
	return latencies
}

func percentile(sorted []float64, p float64) float64 {
	at := int(float64(len(sorted)) * p / 100)
	if at >= len(sorted) {
		at = len(sorted) - 1
	}
	return sorted[at] / 1000
}

func makeStreams(url, prefix string, n, replicas int) {
	var nc *nats.Conn
	var err error
	for try := 0; try < 60; try++ { // the servers may still be starting
		if nc, err = nats.Connect(url); err == nil {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil {
		fail("connect", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		fail("jetstream", err)
	}
	for i := 0; i < n; i++ {
		name := fmt.Sprintf("%s-%d", prefix, i)
		var err error
		for try := 0; try < 60; try++ { // the cluster may still be starting
			ctx, cancel := context.WithTimeout(context.Background(),
				10*time.Second)
			_, err = js.CreateStream(ctx, jetstream.StreamConfig{
				Name: name, Subjects: []string{name}, Replicas: replicas,
				Storage: jetstream.FileStorage})
			cancel()
			if err == nil {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		if err != nil {
			fail("create "+name, err)
		}
	}
}

func main() {
	url := flag.String("url", "nats://127.0.0.1:4222", "servers")
	prefix := flag.String("stream", "bench", "streams are NAME-0, NAME-1, ...")
	streams := flag.Int("streams", 1, "how many")
	create := flag.Bool("create", false, "create the streams and end")
	n := flag.Int("n", 100000, "messages, of all streams")
	size := flag.Int("size", 1024, "bytes of a message")
	outstanding := flag.Int("outstanding", 1000, "of all streams")
	rate := flag.Float64("rate", 0, "messages a second, of all streams")
	flag.Parse()
	if *create {
		makeStreams(*url, *prefix, *streams, 3)
		return
	}
	each := *outstanding / *streams
	if each < 1 {
		each = 1
	}
	var wait sync.WaitGroup
	all := make([][]float64, *streams)
	begun := time.Now()
	for i := 0; i < *streams; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			subject := fmt.Sprintf("%s-%d", *prefix, i)
			all[i] = publish(*url, subject, *n / *streams, *size, each,
				*rate/float64(*streams))
		}(i)
	}
	wait.Wait()
	seconds := time.Since(begun).Seconds()
	var merged []float64
	for _, l := range all {
		merged = append(merged, l...)
	}
	sort.Float64s(merged)
	count := float64(len(merged))
	out, _ := json.Marshal(map[string]float64{
		"records": count, "seconds": seconds,
		"records_per_second": count / seconds,
		"p50_ms":             percentile(merged, 50),
		"p99_ms":             percentile(merged, 99),
		"p99_9_ms":           percentile(merged, 99.9)})
	fmt.Println(string(out))
}
