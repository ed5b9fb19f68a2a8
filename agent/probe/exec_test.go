package probe_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/probe"
)

func sh(script string) *probe.Exec {
	return &probe.Exec{Command: []string{"/bin/sh", "-c", script}, Allowed: true}
}

func TestExec(t *testing.T) {
	for name, tc := range map[string]struct {
		probe   *probe.Exec
		reason  string
		message string
	}{
		"exit 0":                     {sh("true"), probe.ReasonReady, ""},
		"exit 3, with what it says":  {sh("echo no disk; exit 3"), probe.ReasonCommandFailed, "exit status 3: no disk"},
		"no such program":            {&probe.Exec{Command: []string{"/nonexistent"}, Allowed: true}, probe.ReasonCommandFailed, "no such file"},
		"not allowed":                {&probe.Exec{Command: []string{"/bin/true"}}, probe.ReasonExecNotAllowed, "allowExec: true"},
		"longer than its deadline":   {sh("sleep 60"), probe.ReasonTimeout, ""},
		"a child that holds on":      {sh("sleep 60 & exec sleep 60"), probe.ReasonTimeout, ""},
		"output without end":         {sh("yes; exit 1"), probe.ReasonTimeout, ""},
		"nothing of our environment": {sh(`test -z "$HOME$KUBECONFIG"`), probe.ReasonReady, ""},
		"no new privileges":          {sh("grep -q 'NoNewPrivs:.1' /proc/self/status"), probe.ReasonReady, ""},
	} {
		t.Run(name, func(t *testing.T) {
			deadline := childTime // for what ends by itself, on a machine however busy
			if tc.reason == probe.ReasonTimeout {
				deadline = shortLook
			}
			result := look(t, tc.probe, deadline)
			require.Equal(t, tc.reason, result.Reason, result.Message)
			require.Contains(t, result.Message, tc.message)
			require.Less(t, len(result.Message), 600)
		})
	}
}

func TestExecRunsAsNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become nobody")
	}
	require.Equal(t, probe.True, look(t, sh("test $(id -u) = 65534 && test $(id -g) = 65534 && test $(id -G) = 65534"), childTime).Status)
}

func TestExecLeavesNoProcessAndNoFileBehind(t *testing.T) {
	before := openFiles(t)
	for range 5 {
		// An argument that no other process of this machine has.
		require.Equal(t, probe.ReasonTimeout, look(t, &probe.Exec{
			Command: []string{"/bin/sh", "-c", "sleep 60 & sleep 61", "headstart-test-child"}, Allowed: true,
		}, 50*time.Millisecond).Reason)
	}
	require.Eventually(t, func() bool { return !runs(t, "headstart-test-child") }, childTime, 10*time.Millisecond)
	require.Eventually(t, func() bool { return openFiles(t) <= before }, childTime, 10*time.Millisecond)
}

// openFiles counts our own file descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	count := 0
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		// The runtime makes these two when it first needs them; an inotify or a pidfd is somebody's.
		if err == nil && !strings.HasPrefix(target, "anon_inode:[eventpoll]") && !strings.HasPrefix(target, "anon_inode:[eventfd]") {
			count++
		}
	}
	return count
}
