package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is the controller under measurement.
type process struct {
	cmd   *exec.Cmd
	phase string
	pprof string // address; "" where no profiles are kept
	// metrics is the address of /metrics.
	metrics string
	once    sync.Once
}

const (
	startTimeout = time.Minute
	startPoll    = 5 * time.Millisecond
	// clockTicks is the unit of /proc/PID/stat on every Linux that Go runs on.
	clockTicks = 100
)

// startController starts the binary and returns when it is ready.
func (b *bench) startController(ctx context.Context, phase string) (*process, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	metrics, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	logs := io.Discard
	if b.settings.logs != "" {
		f, err := os.Create(filepath.Join(b.settings.logs, fmt.Sprintf("%d-%d-%s.log", b.nodes, b.rules, phase)))
		if err != nil {
			return nil, err
		}
		logs = f
	}
	// Without the election: a controller that was killed leaves its lease, and the next would wait 15 s for that, which is
	// no part of how long a start takes. What an election costs, the tests of the installed chart see.
	cmd := exec.Command(b.settings.controller, //nolint:noctx,gosec // stopped by stop, also when ctx is over; the caller names the binary
		"--kubeconfig", b.plane.Kubeconfig("headstart-bench", "system:masters"), "--leader-elect=false",
		"--metrics-bind-address="+metrics, "--health-probe-bind-address="+address)
	p := &process{cmd: cmd, metrics: metrics, phase: fmt.Sprintf("%d-%d-%s", b.nodes, b.rules, phase)}
	if b.settings.profiles != "" {
		if p.pprof, err = freeAddress(ctx); err != nil {
			return nil, err
		}
		cmd.Args = append(cmd.Args, "--pprof-bind-address="+p.pprof)
	}
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start controller: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for !ready(ctx, address) {
		if err := sleep(ctx, startPoll); err != nil {
			p.stop()
			return nil, fmt.Errorf("controller was not ready within %s", startTimeout)
		}
	}
	return p, nil
}

// released is how long releases took on average from the controller seeing the last fact, by its own metric.
func (p *process) released(ctx context.Context) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // what matters is read below
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var sum, count float64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "headstart_release_latency_seconds_sum":
			sum, err = strconv.ParseFloat(value, 64)
		case "headstart_release_latency_seconds_count":
			count, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return 0, err
		}
	}
	if count == 0 {
		return 0, errors.New("the controller has counted no release")
	}
	return time.Duration(sum / count * float64(time.Second)), nil
}

// profile keeps one of the controller's profiles ("heap", "profile?seconds=5") where profiles are asked for.
func (b *bench) profile(ctx context.Context, p *process, name string) error {
	if p.pprof == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.pprof+"/debug/pprof/"+name, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // what matters is read below
	kind, _, _ := strings.Cut(name, "?")
	f, err := os.Create(filepath.Join(b.settings.profiles, p.phase+"-"+kind+".pprof"))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := l.Addr().String()
	return address, l.Close()
}

func ready(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is read
	return resp.StatusCode == http.StatusOK
}

func (p *process) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Wait()
	})
}

// usage is the CPU time so far and the peak of resident memory in bytes.
func (p *process) usage() (cpu time.Duration, peak int64) {
	dir := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))
	if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 12 {
			user, _ := strconv.ParseInt(fields[11], 10, 64)
			system, _ := strconv.ParseInt(fields[12], 10, 64)
			cpu = time.Duration(user+system) * time.Second / clockTicks
		}
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return cpu, 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			peak = kib << 10
		}
	}
	return cpu, peak
}
