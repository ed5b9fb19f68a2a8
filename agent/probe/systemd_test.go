package probe_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/internal/systemd"
	"headstart.dev/agent/probe"
	"headstart.dev/agent/systemdtest"
)

// sickUnits is a service manager that does not answer.
type sickUnits struct{ err error }

func (s sickUnits) State(ctx context.Context, _ string) (load, active string, err error) {
	if s.err == nil {
		<-ctx.Done()
		return "", "", ctx.Err()
	}
	return "", "", s.err
}

func (s sickUnits) Watch(context.Context, string, func()) error { return s.err }

func TestSystemd(t *testing.T) {
	known := units{"a.service": "active", "b.service": "activating", "c.service": "failed"}
	for name, tc := range map[string]struct {
		unit   string
		units  probe.Units
		reason string
	}{
		"a unit that is active":          {"a.service", known, probe.ReasonReady},
		"a unit that starts":             {"b.service", known, probe.ReasonUnitNotActive},
		"a unit that failed":             {"c.service", known, probe.ReasonUnitNotActive},
		"a unit that is not there":       {"d.service", known, probe.ReasonNotFound},
		"a service manager that hangs":   {"a.service", sickUnits{}, probe.ReasonTimeout},
		"a machine without such a thing": {"a.service", sickUnits{errors.New("no bus")}, probe.ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.reason, look(t, &probe.Systemd{Unit: tc.unit, Units: tc.units}, shortLook).Reason)
		})
	}
}

func TestAUnitIsSeenByItsOwnSignals(t *testing.T) {
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("cannot run in CI: needs dbus-daemon")
		}
		t.Skip("needs dbus-daemon")
	}
	manager, err := systemdtest.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = manager.Close() })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.Address())
	require.NoError(t, manager.Set("app.service", "activating"))
	results := start(t, &probe.Systemd{Unit: "app.service", Units: systemd.Units{}}, eventsOnly)
	require.Equal(t, probe.ReasonUnitNotActive, next(t, results).Reason)
	require.NoError(t, manager.Set("app.service", "active"))
	for result := next(t, results); result.Status != probe.True; result = next(t, results) {
		require.Equal(t, probe.ReasonUnitNotActive, result.Reason)
	}
	require.NoError(t, manager.Set("app.service", "failed"))
	require.Equal(t, probe.ReasonUnitNotActive, next(t, results).Reason)
}
