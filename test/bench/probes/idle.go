package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/test/testenv"
)

const (
	// idleLimit is the share of one core that an idle agent may use.
	idleLimit = 0.001
	// calm is when a boot's last patch, of annotations that wait for others, has been sent.
	calm = 15 * time.Second
	// clockTicks is the unit of /proc/PID/stat on every Linux that Go runs on.
	clockTicks = 100
)

// auditPolicy logs the agent's requests and nobody else's.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["` + agentUser + `"]}
- {level: None}
`

// idle measures an agent whose probes, with their default periods, are all ready, and fails when it costs too much.
func idle(ctx context.Context, out io.Writer, binary string, length time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "hsi")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("write audit policy: %w", err)
	}
	b, err := newBench(ctx, "--audit-policy-file="+policy, "--audit-log-path="+audit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	pid, err := b.boot(ctx, binary)
	if err != nil {
		return err
	}
	before, err := costOf(pid, audit)
	if err != nil {
		return err
	}
	if before.requests == 0 {
		return errors.New("the audit log has nothing of the agent's boot: it would show no idle request either")
	}
	if err := pause(ctx, length); err != nil {
		return err
	}
	after, err := costOf(pid, audit)
	if err != nil {
		return err
	}
	cpu, requests := after.cpu-before.cpu, after.requests-before.requests
	share := cpu.Seconds() / length.Seconds()
	fmt.Fprintf(out, "idle agent, %d probes ready, %v: %v of CPU, %.4f%% of a core (%.2f of the %.1f%% allowed), %d API requests (its boot: %d)\n",
		len(b.facts), length, cpu, 100*share, share/idleLimit, 100*idleLimit, requests, before.requests)
	if share > idleLimit || requests > 0 {
		return fmt.Errorf("an idle agent costs %.4f%% of a core and %d API requests, allowed are %.1f%% and none", 100*share, requests, 100*idleLimit)
	}
	return nil
}

// boot runs the agent in a cluster that has all of Headstart installed, until everything is True and nothing is due.
func (b *bench) boot(ctx context.Context, binary string) (pid int, err error) {
	if err := testenv.InstallCRDs(ctx, b.plane.Config(), "deploy/crd"); err != nil {
		return 0, err
	}
	if err := testenv.ApplyFiles(ctx, b.plane.Config(), "deploy/rbac/agent/agent.yaml", "deploy/rbac/agent/prepull.yaml"); err != nil {
		return 0, err
	}
	if pid, err = b.runBinary(ctx, binary); err != nil {
		return 0, err
	}
	for _, f := range b.facts {
		if err := f.set(ctx, true); err != nil {
			return 0, err
		}
		if _, err := b.await(ctx, f.condition, corev1.ConditionTrue); err != nil {
			return 0, err
		}
	}
	return pid, pause(ctx, calm)
}

// runBinary starts the agent as a process of its own, whose CPU time can be told from the benchmark's.
func (b *bench) runBinary(ctx context.Context, binary string) (pid int, err error) {
	file := filepath.Join(b.dir, "agent.yaml")
	if err := os.WriteFile(file, b.config(10*time.Second), 0o600); err != nil {
		return 0, fmt.Errorf("write config: %w", err)
	}
	cmd := exec.CommandContext(ctx, binary, "run", "--config", file)
	cmd.Env = append(os.Environ(), "KUBECONFIG=", "NODE_NAME=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the agent: %w", err)
	}
	b.closers = append(b.closers, func() error {
		// It was killed: how it ended says nothing.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	})
	return cmd.Process.Pid, nil
}

// cost is what a process has used so far: CPU time, that of its children included, and requests.
type cost struct {
	cpu      time.Duration
	requests int
}

func costOf(pid int, audit string) (cost, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return cost{}, fmt.Errorf("the agent has ended: %w", err)
	}
	// pid (comm) state ...: utime, stime, cutime and cstime are the fields 14 to 17.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 15 {
		return cost{}, fmt.Errorf("read CPU time: %q", stat)
	}
	var out cost
	for _, field := range fields[11:15] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return cost{}, fmt.Errorf("read CPU time: %w", err)
		}
		out.cpu += time.Duration(ticks) * time.Second / clockTicks
	}
	log, err := os.ReadFile(audit)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return cost{}, fmt.Errorf("read audit log: %w", err)
	}
	out.requests = bytes.Count(log, []byte("\n"))
	return out, nil
}
