package systemd_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/internal/systemd"
	"headstart.dev/agent/systemdtest"
)

func startSystemd(t *testing.T) *systemdtest.Systemd {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("cannot run in CI: needs dbus-daemon")
		}
		t.Skip("needs dbus-daemon")
	}
	s, err := systemdtest.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", s.Address())
	return s
}

func TestState(t *testing.T) {
	s := startSystemd(t)
	load, _, err := systemd.Units{}.State(t.Context(), "kubelet.service")
	require.NoError(t, err)
	require.Equal(t, "not-found", load)
	require.NoError(t, s.Set("kubelet.service", "activating"))
	load, active, err := systemd.Units{}.State(t.Context(), "kubelet.service")
	require.NoError(t, err)
	require.Equal(t, "loaded", load)
	require.Equal(t, "activating", active)
}

func TestStateWithoutABusIsAnErrorAtOnce(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
	_, _, err := systemd.Units{}.State(t.Context(), "kubelet.service")
	require.ErrorContains(t, err, "connect to systemd")
}

func TestWatchWakesWithTheUnitsOwnSignals(t *testing.T) {
	s := startSystemd(t)
	woken := make(chan struct{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = systemd.Units{}.Watch(ctx, "kubelet.service", func() { woken <- struct{}{} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	wait := func() {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(20 * time.Second):
			t.Fatal("no signal")
		}
	}
	wait() // subscribed
	require.NoError(t, s.Set("other.service", "active"))
	require.NoError(t, s.Set("kubelet.service", "active"))
	wait()
	select {
	case <-woken:
		t.Fatal("woken by another unit")
	case <-time.After(100 * time.Millisecond):
	}
}
