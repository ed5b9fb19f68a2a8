package conventions

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// requirement is one line of a go.mod: a module and its version, or what stands in for it.
var requirement = regexp.MustCompile(`(?m)^(?:require)?\s*([a-z0-9][\w./~-]*\.[\w./~-]+)(?: => [\w./~-]+)? (v[^\s]+)`)

// versions reads the versions of a go.mod; a replacement, which comes last in the file, wins.
func versions(t *testing.T, dir string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	require.NoError(t, err)
	out := map[string]string{}
	for _, found := range requirement.FindAllStringSubmatch(string(text), -1) {
		out[found[1]] = found[2]
	}
	return out
}

// TestServersShareOurVersions keeps first builds short: what this project and the testbed's servers both import is compiled
// once only if its version is the same. Where it fails, "go get" the higher version in the module that lags.
func TestServersShareOurVersions(t *testing.T) {
	ours, servers := versions(t, root(t)), versions(t, filepath.Join(root(t), "test", "tools"))
	shared := 0
	for _, module := range slices.Sorted(maps.Keys(ours)) {
		if version, both := servers[module]; both {
			shared++
			require.Equal(t, ours[module], version, "test/tools/go.mod has another version of %s", module)
		}
	}
	require.Greater(t, shared, 100)
}
