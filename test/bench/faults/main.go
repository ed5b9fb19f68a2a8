// Command faults breaks what a pull depends on, in every way, while an image comes to a real containerd from a real
// registry, and prints for each fault how many bytes came twice, and whether the image became whole. It ends with 1 when
// a fault cost more than its bar: a range after a broken connection, a layer after corrupt bytes or a SIGKILL.
//
//	go run ./test/bench/faults -only SIGKILL
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
)

const mib = 1 << 20

// rangeBytes is the range size of the worker: what an agent has by default.
const rangeBytes = 8 * mib

// worker are the arguments of this program's own child, which stands for the agent: it can be killed.
type worker struct {
	address string
	minFree int64
}

func main() {
	only := flag.String("only", "", "faults whose name contains this; all when empty")
	child := flag.Bool("worker", false, "for this program's own use")
	var w worker
	flag.StringVar(&w.address, "address", "", "for this program's own use")
	flag.Int64Var(&w.minFree, "min-free", 1, "for this program's own use")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if *child {
		err = w.pull(ctx, flag.Arg(0))
	} else {
		err = bench(ctx, *only, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench faults:", err)
		os.Exit(1)
	}
}

// pull is the agent: it tries until the image is there or cannot be.
func (w worker) pull(ctx context.Context, ref string) error {
	login := func(context.Context, string, string, int) (string, string, error) { return "user", "secret", nil }
	store, err := containerd.New(containerd.Config{
		Address: w.address, Engines: []string{containerd.EngineDirect}, Credentials: login, MinFreeBytes: w.minFree,
		ChunkSize: rangeBytes, Log: logr.Discard(),
	})
	if err != nil {
		return err
	}
	puller, err := prepull.New(prepull.Config{Store: store, Images: []prepull.Image{{Ref: ref}}, Log: logr.Discard()})
	if err != nil {
		return err
	}
	runCtx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = puller.Run(runCtx)
	}()
	statuses, err := puller.Wait(ctx)
	cancel()
	<-done
	for _, s := range statuses {
		if s.State != prepull.StateWarm {
			err = errors.Join(err, fmt.Errorf("%s: %s: %s", s.Name, s.State, s.Error))
		}
	}
	return errors.Join(err, store.Close())
}

func bench(ctx context.Context, only string, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("a containerd needs root")
	}
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }()
	fmt.Fprintf(out, "an image of %d layers, %.1f MiB, the largest %.1f MiB; ranges of %d MiB; 20 MiB/s a connection\n\n",
		len(w.layers), float64(w.total)/mib, float64(w.largest)/mib, rangeBytes/mib)
	const row = "%-38s %10s  %-10s %8s  %s\n" // printed as they come: all of them take minutes
	fmt.Fprintf(out, row, "fault", "MiB twice", "bar", "seconds", "the image")
	over := 0
	for _, f := range faults() {
		if !strings.Contains(f.name, only) {
			continue
		}
		r, err := w.measure(ctx, f)
		verdict := "whole"
		bar, limit := f.bar(w)
		switch {
		case err != nil:
			verdict = strings.Join(strings.Fields(err.Error()), " ")
			over++
		case r.twice > limit:
			verdict = "whole, OVER THE BAR"
			over++
		}
		fmt.Fprintf(out, row, f.name, fmt.Sprintf("%.2f", float64(r.twice)/mib), bar, fmt.Sprintf("%.1f", r.took.Seconds()), verdict)
		if ctx.Err() != nil {
			break
		}
	}
	if over > 0 {
		return fmt.Errorf("%d faults cost more than their bar", over)
	}
	return nil
}

// result of one fault.
type result struct {
	twice int64
	took  time.Duration
}
