// Command pull measures how fast images come to a node: our engines beside what else there is, and beside the bare limit of
// fetch, inflate and write. Every run has a fresh containerd on a fresh file system, contenders take turns, and the trees
// that they leave are compared.
//
//	go run ./test/bench/pull -help
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv/disk"
	"headstart.dev/test/testenv/images"
)

// latency of every request: what a registry of the same region has.
const latency = 15 * time.Millisecond

const usage = `Pulls images by every contender in turn, and prints medians, ratios to the bare limit, and the bars. It wants root.

  go run ./test/bench/pull -images webapp -rates 40 -rounds 1                     # a few minutes: ours, the CRI, SOCI
  go run ./test/bench/pull -images webapp -rates 0 -tools DIR                     # all contenders, as fast as the machine is
  go run ./test/bench/pull -images ml -rates 40 -rounds 1 -only "bare,direct,cri stock"
  go run ./test/bench/pull -images small -rates 10,40 -json small.json
  go run ./test/bench/pull -images webapp -rates 40 -fs ext4

DIR has ctr: go run ./test/testenv/servers prints it.

`

type options struct {
	rates, images, only string
	fs                  string
	rounds              int
	tools, jsonPath     string
	worker, profile     string
	address, host, dir  string
}

func main() {
	var o options
	flag.StringVar(&o.rates, "rates", "0,40,10", "MiB/s of one connection, 0 is unlimited")
	flag.StringVar(&o.images, "images", "webapp,ml,small", "which images")
	flag.StringVar(&o.only, "only", "", "contenders, by the beginning of their names; all when empty")
	flag.StringVar(&o.fs, "fs", disk.Default(), "file system of the node's disk: xfs, ext4, or tmpfs to find the limit")
	flag.IntVar(&o.rounds, "rounds", 3, "runs of every contender")
	flag.StringVar(&o.tools, "tools", "", "folder with ctr; contenders that need it are left out without")
	flag.StringVar(&o.jsonPath, "json", "", "file for all figures")
	flag.StringVar(&o.profile, "profile", "", "file for a processor profile of the last run of an engine")
	flag.StringVar(&o.worker, "worker", "", "for this program's own use")
	flag.StringVar(&o.address, "address", "", "for this program's own use")
	flag.StringVar(&o.host, "host", "", "for this program's own use")
	flag.StringVar(&o.dir, "dir", "", "for this program's own use")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if o.worker != "" {
		err = profiled(o.profile, func() error { return work(ctx, o, flag.Args()) })
		fmt.Fprintln(os.Stdout, writtenBy("self")) // the last line is for the run that started this
	} else {
		err = bench(ctx, o, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench pull:", err)
		os.Exit(1)
	}
}

// profiled runs a function and writes what its processor time went into, when a file is named.
func profiled(path string, run func() error) error {
	if path == "" {
		return run()
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = run()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// work pulls by one engine and nothing else.
func work(ctx context.Context, o options, refs []string) error {
	if o.worker == "bare" {
		return bare(ctx, o.host, refs, o.dir)
	}
	store, err := containerd.New(containerd.Config{Address: o.address, Engines: []string{o.worker}, Log: logr.Discard(), MinFreePercent: 1})
	if err != nil {
		return err
	}
	var wanted []prepull.Image
	for _, ref := range refs {
		wanted = append(wanted, prepull.Image{Ref: ref})
	}
	puller, err := prepull.New(prepull.Config{Store: store, Images: wanted, MaxAttempts: 1, Log: logr.Discard()})
	if err != nil {
		return err
	}
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = puller.Run(runCtx) }()
	statuses, err := puller.Wait(ctx)
	for _, s := range statuses {
		if s.State != prepull.StateWarm || s.Engine != o.worker {
			err = errors.Join(err, fmt.Errorf("%s: %s by %q: %s", s.Name, s.State, s.Engine, s.Error))
		}
		if os.Getenv("BENCH_STAGES") != "" {
			fmt.Fprintln(os.Stderr, s.Name, s.Stages)
		}
	}
	return errors.Join(err, store.Close())
}

// The shapes of the issue, in bytes before compression; real files compress to about a half.
const mib = 1 << 20

func shapes(which string) (map[string][]images.Spec, []string, error) {
	all := map[string][]images.Spec{
		// 8 layers, 400 MB compressed.
		"webapp": {images.Sized("benchweb", 250*mib, 95*mib, 390*mib, 295*mib, 140*mib, 95*mib, 30*mib, 3*mib)},
		"ml":     {images.MachineLearning()},
		"small":  images.Small(30),
	}
	names := strings.Split(which, ",")
	for _, name := range names {
		if all[name] == nil {
			return nil, nil, fmt.Errorf("-images %q: want some of webapp, ml, small", name)
		}
	}
	return all, names, nil
}

func bench(ctx context.Context, o options, out io.Writer) error {
	all, names, err := shapes(o.images)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "headstart-bench-images-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := newServer(ctx, dir, latency)
	if err != nil {
		return err
	}
	defer func() { _ = s.front.Close() }()
	var results []result
	for _, name := range names {
		var refs []string
		for i, spec := range all[name] {
			img, err := images.Build(ctx, spec)
			if err != nil {
				return fmt.Errorf("make the image %s: %w", name, err)
			}
			ref, err := s.add(fmt.Sprintf("bench/%s-%d", name, i), img)
			if err != nil {
				return fmt.Errorf("serve the image %s: %w", name, err)
			}
			refs = append(refs, ref)
		}
		for rate := range strings.SplitSeq(o.rates, ",") {
			mibs, err := strconv.ParseInt(rate, 10, 64)
			if err != nil || mibs < 0 {
				return fmt.Errorf("-rates %q: want numbers of MiB/s, such as 0,40,10", o.rates)
			}
			s.rate.Store(mibs << 20)
			r, err := compare(ctx, o, s, refs)
			if err != nil {
				return err
			}
			r.Image, r.Rate = name, mibs
			results = append(results, r)
			r.print(out)
			r.printBars(out)
		}
	}
	if o.jsonPath == "" {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.jsonPath, data, 0o600)
}

// compare lets the contenders take turns.
func compare(ctx context.Context, o options, s *server, refs []string) (result, error) {
	r := result{Runs: map[string][]figures{}}
	for round := range o.rounds {
		for _, c := range contenders() {
			if !chosen(c.name, o) {
				continue
			}
			f, err := measure(ctx, c, s, refs, o)
			if err != nil {
				return r, err
			}
			if round == 0 {
				r.order = append(r.order, c.name)
			}
			r.Runs[c.name] = append(r.Runs[c.name], f)
		}
	}
	return r, nil
}

func chosen(name string, o options) bool {
	if o.tools == "" && (strings.HasPrefix(name, "ctr") || strings.HasPrefix(name, "transfer")) {
		return false
	}
	if o.only == "" {
		return true
	}
	return slices.ContainsFunc(strings.Split(o.only, ","), func(part string) bool { return strings.HasPrefix(name, part) })
}
