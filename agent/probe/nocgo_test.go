package probe_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/probe"
)

// TestABuildWithoutCgoSaysWhatItLacks runs the same of package nvml in a build without cgo, and looks through what such a
// build reports.
func TestABuildWithoutCgoSaysWhatItLacks(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestABuildWithoutCgoSaysWhatItLacks$", "-v", "./nvml")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestABuildWithoutCgoSaysWhatItLacks")

	gpu := machine(t, 1, 0, "/nonexistent")
	gpu.ReadCommand = []string{"/bin/sh", "-c", `echo '{"outcome":"Unsupported","error":"built with CGO_ENABLED=0"}'`}
	result := look(t, gpu, childTime)
	require.Equal(t, probe.ReasonNoNVML, result.Reason)
	require.Contains(t, result.Message, "CGO_ENABLED=0")
}
