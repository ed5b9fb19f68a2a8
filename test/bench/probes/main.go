// Command probes measures from fact to condition: the time from the moment at which something becomes true on a node (a
// conflist is renamed into place, a CSI driver listens, a unit is active, an HTTP endpoint turns good) until the Node on a
// real API server carries the condition. Agent, API server, etcd, containerd and the observer share one machine. Beside it
// stand pollers that look at the same facts every second and every 30 seconds and need no time to publish.
//
//	go run ./test/bench/probes -runs 200
//
// With -idle it measures what an agent costs that has nothing to do: CPU time, and requests in the API server's audit log.
//
//	go run ./test/bench/probes -idle 10m -agent bin/headstart-agent
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	runs := flag.Int("runs", 200, "how often each fact becomes true")
	limit := flag.Duration("limit", 0, "fail when the 99th percentile of a fact is over this; 0 never fails")
	only := flag.String("fact", "", "measure this fact alone")
	idleFor := flag.Duration("idle", 0, "measure an idle agent for this long in place of the facts")
	binary := flag.String("agent", "bin/headstart-agent", "the agent's `binary`, for -idle")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if *idleFor > 0 {
		err = idle(ctx, os.Stdout, *binary, *idleFor)
	} else {
		err = run(ctx, os.Stdout, *runs, *limit, *only)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probes:", err)
		os.Exit(1)
	}
}

// pollers are what the agent is compared with: node-readiness-controller's reporter looks every 30s.
var pollers = []time.Duration{time.Second, 30 * time.Second}

func run(ctx context.Context, out io.Writer, runs int, limit time.Duration, only string) (err error) {
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.startAgent(ctx, b.config(50*time.Millisecond)); err != nil {
		return err
	}
	begun := time.Now()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "fact to condition, %d runs\tmin\tp50\tp99\tmax\t", runs)
	for _, period := range pollers {
		fmt.Fprintf(table, "poll every %v: p50\tp99\t", period)
	}
	fmt.Fprintln(table, "p50 ratio")
	var late error
	for _, fact := range b.facts {
		if only != "" && fact.name != only {
			continue
		}
		got, err := b.measure(ctx, fact, runs)
		if err != nil {
			return fmt.Errorf("%s: %w", fact.name, err)
		}
		took := got.took
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t", fact.name, ms(took[0]), ms(percentile(took, 50)), ms(percentile(took, 99)), ms(took[len(took)-1]))
		slowest := time.Duration(0)
		for _, period := range pollers {
			polled := poll(begun, period, got.facts)
			slowest = percentile(polled, 50)
			fmt.Fprintf(table, "%s\t%s\t", ms(slowest), ms(percentile(polled, 99)))
		}
		fmt.Fprintf(table, "%.0fx\n", slowest.Seconds()/percentile(took, 50).Seconds())
		if p99 := percentile(took, 99); limit > 0 && p99 > limit {
			late = errors.Join(late, fmt.Errorf("%s: p99 is %s, at most %v is wanted", fact.name, ms(p99), limit))
		}
	}
	fmt.Fprintf(table, "pollers: from each of these facts to the next look of one that has looked since the start of the run; publishing counts as nothing\n")
	return errors.Join(late, table.Flush())
}

// poll is how late a poller that began to look at a moment sees facts.
func poll(begun time.Time, period time.Duration, facts []time.Time) []time.Duration {
	out := make([]time.Duration, 0, len(facts))
	for _, at := range facts {
		out = append(out, period-at.Sub(begun)%period)
	}
	slices.Sort(out)
	return out
}

// percentile is the nearest-rank percentile of sorted durations.
func percentile(sorted []time.Duration, p int) time.Duration {
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond)) }
