// Command gates measures how fast gates are lifted when the last fact arrives, with 10,000 pods waiting on 1,000 nodes, on
// a real API server: beside it, in the same run and first, the same number of clients send bare patches with the same
// content to as many pods, knowing beforehand what to patch. The controller is a process of its own; API server, etcd,
// controller and observer share one machine.
//
//	go run ./test/bench/gates
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The bars.
const (
	barRatio    = 1.15
	barP99      = 25 * time.Millisecond
	barRequests = 1.02
	barMemory   = 180 << 20
)

// size says how much is measured.
type size struct{ pods, nodes, singles, clients int }

func main() {
	s := size{}
	flag.IntVar(&s.pods, "pods", 10_000, "pods that wait")
	flag.IntVar(&s.nodes, "nodes", 1_000, "nodes with warm images")
	flag.IntVar(&s.singles, "singles", 300, "pods that are lifted one by one while the others wait")
	flag.IntVar(&s.clients, "clients", 16, "patches in flight, of the controller and of the bare clients")
	child := flag.Bool("controller", false, "be the controller that is measured (internal)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if *child {
		err = runController(ctx, os.Getenv("KUBECONFIG"), s.clients)
	} else {
		err = run(ctx, os.Stdout, s)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gates:", err)
		os.Exit(1)
	}
}

// figures are what was measured.
type figures struct {
	bare, ours time.Duration
	p50, p99   time.Duration
	requests   float64
	memory     int64
}

func run(ctx context.Context, out io.Writer, s size) error {
	b, err := start(ctx, out, s)
	if err != nil {
		return err
	}
	f, err := b.measure(ctx)
	if err := errors.Join(err, b.stop()); err != nil {
		return err
	}
	return report(out, s, f)
}

func report(out io.Writer, s size, f figures) error {
	ratio := f.ours.Seconds() / f.bare.Seconds()
	fmt.Fprintf(out, "\n%d pods, %d nodes, %d patches in flight\n", s.pods, s.nodes, s.clients)
	fmt.Fprintf(out, "bare patches, first to last          %8.2fs\n", f.bare.Seconds())
	fmt.Fprintf(out, "last fact to last lift               %8.2fs  ratio %.3f (bar %.2f)\n", f.ours.Seconds(), ratio, barRatio)
	fmt.Fprintf(out, "fact to lift of a single pod, p50    %8.1fms\n", float64(f.p50.Microseconds())/1e3)
	fmt.Fprintf(out, "fact to lift of a single pod, p99    %8.1fms (bar %s)\n", float64(f.p99.Microseconds())/1e3, barP99)
	fmt.Fprintf(out, "mutating requests a pod, no events   %8.3f   (bar %.2f)\n", f.requests, barRequests)
	fmt.Fprintf(out, "peak memory of the controller        %8.1fMB (bar %d MB)\n", float64(f.memory)/(1<<20), barMemory>>20)
	var missed []error
	for name, over := range map[string]bool{
		"ratio": ratio > barRatio, "p99": f.p99 > barP99, "requests": f.requests > barRequests, "memory": f.memory > barMemory,
	} {
		if over {
			missed = append(missed, fmt.Errorf("%s is over its bar", name))
		}
	}
	return errors.Join(missed...)
}
