package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"headstart.dev/test/testenv/internal/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell is a server that is a line of shell.
func shell(t *testing.T, script string) process.Config {
	t.Helper()
	return process.Config{Name: "server", Path: "/bin/sh", Args: []string{"-c", script}, LogPath: filepath.Join(t.TempDir(), "log")}
}

// exists is ready when path is there.
func exists(path string) func(context.Context) error {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

func TestStartWaitsUntilReady(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	cfg := shell(t, "sleep 0.1; touch "+ready+"; exec sleep 60")
	cfg.Ready = exists(ready)
	p, err := process.Start(t.Context(), cfg)
	require.NoError(t, err)
	require.FileExists(t, ready)
	require.NoError(t, p.Stop())
	require.ErrorIs(t, syscall.Kill(p.PID(), 0), syscall.ESRCH)
	require.NoError(t, p.Stop(), "stopping again does nothing")
}

func TestStartTellsWhyAServerEnded(t *testing.T) {
	cfg := shell(t, "echo port is taken >&2; exit 3")
	cfg.Ready = exists(filepath.Join(t.TempDir(), "never"))
	_, err := process.Start(t.Context(), cfg)
	require.ErrorIs(t, err, process.ErrExited)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "port is taken")
}

func TestStartLeavesNothingWhenTheServerIsNeverReady(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	cfg := shell(t, "echo $$ > "+pidFile+"; exec sleep 60")
	notReady := errors.New("not yet")
	cfg.Ready = func(context.Context) error { return notReady }
	cfg.StartTimeout = 200 * time.Millisecond
	_, err := process.Start(t.Context(), cfg)
	require.ErrorIs(t, err, notReady)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	pid, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	require.NoDirExists(t, "/proc/"+string(pid[:len(pid)-1]))
}

func TestStopKillsWhatDoesNotEndWithItsChildren(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	cfg := shell(t, "trap '' TERM; sleep 60 & echo $! > "+ready+".tmp; mv "+ready+".tmp "+ready+"; wait; wait; sleep 60")
	cfg.Ready, cfg.StopTimeout = exists(ready), 100*time.Millisecond
	p, err := process.Start(t.Context(), cfg)
	require.NoError(t, err)
	child, err := os.ReadFile(ready)
	require.NoError(t, err)
	require.ErrorContains(t, p.Stop(), "still running")
	stat := "/proc/" + string(child[:len(child)-1]) + "/cmdline"
	require.Eventually(t, func() bool {
		command, err := os.ReadFile(stat)
		return err != nil || len(command) == 0 // gone, or dead and waiting for init
	}, 10*time.Second, 10*time.Millisecond)
}

func TestLogTailStartsAtALine(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	cfg := shell(t, "echo first line; echo second line; touch "+ready+"; exec sleep 60")
	cfg.Ready = exists(ready)
	p, err := process.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	require.Equal(t, "second line\n", p.LogTail(15))
	require.Equal(t, "first line\nsecond line\n", p.LogTail(1000))
}

func TestUnknownNetworkNamespaceIsAnError(t *testing.T) {
	cfg := shell(t, "exec sleep 60")
	cfg.NetworkNamespace = "headstart-does-not-exist"
	_, err := process.Start(t.Context(), cfg)
	require.ErrorContains(t, err, "headstart-does-not-exist")
}
