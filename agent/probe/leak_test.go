package probe_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"headstart.dev/agent/probe"
)

// children counts the processes that this one has started and that still are.
func children(t *testing.T) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	count := 0
	for _, stat := range stats {
		raw, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (comm) state ppid ...
		_, rest, _ := strings.Cut(string(raw), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == fmt.Sprint(os.Getpid()) {
			count++
		}
	}
	return count
}

// TestWhateverHangsNothingIsBlockedOrLeaked runs a hung NVML, hung gRPC servers and FIFOs where sockets and files should
// be, beside a probe that works, for many looks; and then counts.
func TestWhateverHangsNothingIsBlockedOrLeaked(t *testing.T) {
	dir := socketDir(t)
	gpu := machine(t, 1, 0, fakeLibrary(t, "HANG"))
	silent(t, listen(t, "unix", filepath.Join(dir, "hangs.sock")))
	silent(t, listen(t, "unix", filepath.Join(dir, "plugins", "hangs.example", "csi.sock")))
	silent(t, listen(t, "unix", filepath.Join(dir, "pods-api", "pods-api.sock")))
	for _, fifo := range []string{"fifo.sock", "10-net.conflist", "plugins/fifo.example/csi.sock"} {
		path := filepath.Join(dir, fifo)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, syscall.Mkfifo(path, 0o600))
	}
	// The servers of the test, and what it started for them.
	already := goleak.IgnoreCurrent()
	files, processes := openFiles(t), children(t)

	ctx, cancel := context.WithCancel(t.Context())
	settings := probe.Settings{Period: 20 * time.Millisecond, Pending: 20 * time.Millisecond, Timeout: 50 * time.Millisecond, SuccessThreshold: 1, FailureThreshold: 1}
	var running sync.WaitGroup
	var mu sync.Mutex
	reasons := map[string]string{}
	run := func(name string, checker probe.Checker, settings probe.Settings) {
		runner := probe.Runner{Checker: checker, Settings: settings, Report: func(r probe.Result) {
			mu.Lock()
			defer mu.Unlock()
			reasons[name] = r.Reason
		}}
		running.Go(func() { runner.Run(ctx) })
	}
	run("gpu", gpu, settings)
	run("grpc", &probe.GRPC{Address: "unix://" + filepath.Join(dir, "hangs.sock")}, settings)
	run("grpc on a FIFO", &probe.GRPC{Address: "unix://" + filepath.Join(dir, "fifo.sock")}, settings)
	run("unix on a FIFO", &probe.Unix{Path: filepath.Join(dir, "fifo.sock")}, settings)
	run("csi", &probe.CSI{Drivers: []string{"hangs.example", "fifo.example"}, KubeletDir: dir}, settings)
	run("csi on a FIFO", &probe.CSI{Drivers: []string{"fifo.example"}, KubeletDir: dir}, settings)
	run("cni", &probe.CNI{ConfDir: dir, Plugin: probe.PluginAuto, Runtime: &probe.CRI{Address: filepath.Join(dir, "hangs.sock")}}, settings)
	pods := probe.NewPods(dir)
	running.Go(func() { _ = pods.Run(ctx) })
	run("pods", &probe.DaemonSet{Want: agentDaemonSet, Pods: pods}, settings)

	works := make(chan probe.Result, 16)
	path := filepath.Join(dir, "works", "f")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o755))
	runner := probe.Runner{Checker: &probe.File{Path: path}, Settings: eventsOnly, Report: func(r probe.Result) { works <- r }}
	running.Go(func() { runner.Run(ctx) })
	require.Equal(t, probe.False, next(t, works).Status)
	for range 20 {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.Equal(t, probe.True, next(t, works).Status)
		require.NoError(t, os.Remove(path))
		require.Equal(t, probe.False, next(t, works).Status)
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // lets the others look and hang
	}
	want := map[string]string{
		"gpu": probe.ReasonDriverHangs, "grpc": probe.ReasonTimeout, "grpc on a FIFO": probe.ReasonUnreachable,
		"unix on a FIFO": probe.ReasonUnreachable, "csi": probe.ReasonTimeout, "csi on a FIFO": probe.ReasonUnreachable,
		"cni": probe.ReasonInvalidConfig, "pods": probe.ReasonKubeletAway,
	}
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(reasons) == len(want) }, childTime, 10*time.Millisecond)
	mu.Lock()
	require.Equal(t, want, reasons)
	mu.Unlock()

	cancel()
	running.Wait()
	require.Eventually(t, func() bool { return children(t) <= processes }, childTime, 10*time.Millisecond, "no process is left")
	require.NoError(t, goleak.Find(already), "no goroutine is left")
	require.Eventually(t, func() bool { return openFiles(t) <= files }, childTime, 10*time.Millisecond, "no file is left open")
}
