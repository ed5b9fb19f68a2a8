package userdata_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	bootTimeout = 90 * time.Second
	// look is the time between two looks at a machine.
	look = 100 * time.Millisecond
)

// machine is a booted root. Its network is the host's, so that it reaches the test's registry on loopback.
type machine struct {
	pid int // of its systemd
}

// boot starts the root's systemd. binds are further --bind arguments.
func boot(t *testing.T, root string, binds ...string) *machine {
	t.Helper()
	console := filepath.Join(t.TempDir(), "console")
	log, err := os.Create(console)
	require.NoError(t, err)
	args := []string{
		"--directory=" + root, "--boot", "--quiet", "--register=no", "--keep-unit", "--capability=all",
		"--machine=headstart-" + strconv.Itoa(os.Getpid()), "--link-journal=no", "--resolv-conf=off", "--timezone=off",
	}
	for _, bind := range binds {
		args = append(args, "--bind="+bind)
	}
	cmd := exec.Command("systemd-nspawn", args...) //nolint:noctx // it is stopped by the clean-up, which t.Context would forestall
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	m := &machine{}
	t.Cleanup(func() {
		if t.Failed() && m.pid != 0 {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), bootTimeout)
			defer cancel()
			out, _ := m.command(ctx, "journalctl", "--no-pager", "--output=short-monotonic", "--lines=150").CombinedOutput()
			t.Logf("journal:\n%s", out)
		}
		// SIGTERM powers the machine off; what does not go by then is killed.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(bootTimeout):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-exited
		}
	})
	require.Eventually(t, func() bool {
		m.pid = childOf(cmd.Process.Pid)
		if m.pid == 0 {
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return m.command(ctx, "systemctl", "is-active", "--quiet", "dbus.service").Run() == nil
	}, bootTimeout, look, "systemd did not come up: see the console")
	return m
}

// childOf returns the PID of the process's first child, 0 while there is none.
func childOf(pid int) int {
	name := strconv.Itoa(pid)
	text, err := os.ReadFile(filepath.Join("/proc", name, "task", name, "children"))
	if err != nil {
		return 0
	}
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			return child
		}
	}
	return 0
}

// command runs inside of the machine.
func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"--target=" + strconv.Itoa(m.pid), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd=/"}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}

// run returns what the command prints, and fails the test when it fails.
func (m *machine) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	out, err := m.command(ctx, args...).CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
	return strings.TrimSpace(string(out))
}

// show is one property of a unit.
func (m *machine) show(t *testing.T, unit, property string) string {
	t.Helper()
	return m.run(t, "systemctl", "show", "--value", "--property="+property, unit)
}

func (m *machine) waitActive(t *testing.T, unit string) {
	t.Helper()
	require.Eventually(t, func() bool { return m.show(t, unit, "ActiveState") == "active" }, bootTimeout, look, "%s is not active", unit)
}

// since is the time from when the one unit was started to when the other was active.
func (m *machine) since(t *testing.T, started, active string) time.Duration {
	t.Helper()
	micros := func(unit, property string) int64 {
		value, err := strconv.ParseInt(m.show(t, unit, property), 10, 64)
		require.NoError(t, err)
		return value
	}
	return time.Duration(micros(active, "ActiveEnterTimestampMonotonic")-micros(started, "InactiveExitTimestampMonotonic")) * time.Microsecond
}
