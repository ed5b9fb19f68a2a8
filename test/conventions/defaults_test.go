package conventions

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	// switchedOff is a flag of ours, as a test or a bench passes it, that takes away what users have by default.
	switchedOff = regexp.MustCompile(`"--(leader-elect|metrics-bind-address|health-probe-bind-address|controllers|rules)(=[^"]*)?"`)
	// near is how many lines above the flag its reason may begin.
	near = 6
)

// TestDefaultsAreSwitchedOffForAReason holds tests and benches to what users run: a flag that differs from the default has a
// comment above it that says why. A fault of the election hid behind benches that ran without it.
func TestDefaultsAreSwitchedOffForAReason(t *testing.T) {
	for _, top := range []string{"test", "internal"} {
		err := filepath.WalkDir(filepath.Join(root(t), top), func(path string, entry os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "test/conventions/defaults_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			lines := strings.Split(string(content), "\n")
			for i, line := range lines {
				// testenv starts the servers of Kubernetes, which have a flag of the same name.
				if !switchedOff.MatchString(line) || strings.HasSuffix(path, "test/testenv/servers.go") {
					continue
				}
				above := strings.Join(lines[max(0, i-near):i], "\n")
				require.Contains(t, above, "// ", "%s:%d switches a default off and does not say why", path, i+1)
			}
			return nil
		})
		require.NoError(t, err)
	}
}
