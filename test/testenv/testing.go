package testenv

import (
	"os"
	"strings"
	"testing"

	"headstart.dev/test/testenv/internal/process"
)

// logTailBytes is how much of each server's log a failed test shows: some 40 lines.
const logTailBytes = 8 << 10

// Skip ends the test because something that it needs is not there. With CI=true that is a failure: CI must have it.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("cannot run in CI: %s", reason)
	}
	t.Skip(reason)
}

// RequireRoot skips the test when it does not run as root.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// server is what the tests' clean-up needs of a started thing.
type server interface {
	Stop() error
	processes() []*process.Process
}

// cleanUp stops s at the end of the test, after showing the logs of its processes if the test has failed.
func cleanUp(t testing.TB, s server) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range s.processes() {
				t.Logf("the end of the log of %s:\n%s", p.Name(), indent(p.LogTail(logTailBytes)))
			}
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
