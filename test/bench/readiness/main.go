// Command readiness measures how fast headstart-controller releases nodes, beside the same writers taking the taint off
// themselves. It starts etcd and kube-apiserver alone, so that nothing else touches a Node, and runs the controller as a
// process of its own.
//
//	go run ./test/bench/readiness -controller bin/headstart-controller -nodes 100,1000 -rules 1,5
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"headstart.dev/test/testenv"
)

type settings struct {
	controller string
	nodes      []int
	rules      []int
	paced      int
	logs       string
	profiles   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "readiness bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	ctrl.SetLogger(logr.Discard())
	s, err := parse(args)
	if err != nil {
		return err
	}
	failed := false
	for _, nodes := range s.nodes {
		for _, rules := range s.rules {
			ok, err := measureOne(ctx, &s, nodes, rules, out)
			if err != nil {
				return fmt.Errorf("%d nodes, %d rules: %w", nodes, rules, err)
			}
			failed = failed || !ok
		}
	}
	if failed {
		fmt.Fprintln(out, "\nsome bars were missed")
	}
	return nil
}

func parse(args []string) (settings, error) {
	var s settings
	var nodes, rules string
	f := flag.NewFlagSet("readiness", flag.ContinueOnError)
	f.StringVar(&s.controller, "controller", "bin/headstart-controller", "the binary to measure")
	f.StringVar(&nodes, "nodes", "100,500,1000,5000", "numbers of nodes")
	f.StringVar(&rules, "rules", "1,5", "numbers of rules")
	f.IntVar(&s.paced, "paced", 500, "nodes of the wave that comes at 50 a second; 0: none")
	f.StringVar(&s.logs, "logs", "", "folder for the controller's logs; empty: none are kept")
	f.StringVar(&s.profiles, "profiles", "", "folder for the controller's profiles, which cost it some; empty: none are made")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	var err error
	if s.nodes, err = numbers(nodes); err != nil {
		return s, err
	}
	if s.rules, err = numbers(rules); err != nil {
		return s, err
	}
	s.controller, err = filepath.Abs(s.controller)
	return s, err
}

func numbers(text string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("read %q: want positive numbers separated by commas", text)
		}
		out = append(out, n)
	}
	return out, nil
}

// measureOne runs one size on a control plane of its own, so that no run inherits another's etcd.
func measureOne(ctx context.Context, s *settings, nodes, rules int, out io.Writer) (ok bool, err error) {
	plane, err := testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{CRDDirs: []string{"deploy/crd"}, APIServerArgs: []string{"--disable-admission-plugins=TaintNodesByCondition"}})
	if err != nil {
		return false, err
	}
	defer func() {
		if stopErr := plane.Stop(); err == nil {
			err = stopErr
		}
	}()
	b, err := newBench(s, plane, nodes, rules)
	if err != nil {
		return false, err
	}
	r, err := b.measure(ctx)
	if err != nil {
		return false, err
	}
	return r.print(out), nil
}

const (
	// writers is how many agents report at the same instant.
	writers     = 32
	pacedRate   = 50
	waveTimeout = 3 * time.Minute
)
