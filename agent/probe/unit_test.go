package probe_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unitChild makes the test's own program one that has the capabilities of the agent's unit and no others, and then runs
// what follows: unitChild <program> <argument>...
const unitChild = "unit-child"

const unitFile = "../../deploy/systemd/headstart-agent.service"

var capabilities = map[string]uintptr{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
	"CAP_FOWNER": unix.CAP_FOWNER, "CAP_FSETID": unix.CAP_FSETID, "CAP_KILL": unix.CAP_KILL, "CAP_SETGID": unix.CAP_SETGID,
	"CAP_SETUID": unix.CAP_SETUID, "CAP_MKNOD": unix.CAP_MKNOD, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
}

// runUnitChild is what TestMain does in that program.
func runUnitChild(args []string) error {
	raw, err := os.ReadFile(unitFile)
	if err != nil {
		return err
	}
	var kept []uintptr
	for line := range strings.Lines(string(raw)) {
		names, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet=")
		if !ok {
			continue
		}
		for name := range strings.FieldsSeq(names) {
			number, known := capabilities[name]
			if !known {
				return fmt.Errorf("the unit has %s: add it to the test", name)
			}
			kept = append(kept, number)
		}
	}
	// They are the thread's, and go over into what it turns into.
	runtime.LockOSThread()
	for number := uintptr(0); number <= unix.CAP_LAST_CAP; number++ {
		if slices.Contains(kept, number) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil {
			return fmt.Errorf("give up capability %d: %w", number, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// A probe that may become nobody must be able to kill nobody's processes as well.
func TestTheExecProbeUnderTheUnitsOwnCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become nobody")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), self, unitChild, self, "-test.run=^TestExec", "-test.v", "-test.count=1").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range []string{"TestExec", "TestExecRunsAsNobody", "TestExecLeavesNoProcessAndNoFileBehind"} {
		require.Contains(t, string(out), "--- PASS: "+name+" ")
	}
}
