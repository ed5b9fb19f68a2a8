package shipped_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const chartPath = "deploy/charts/headstart"

// before returns the sources as they were before the chart's last change, which is what a user upgrades from. Where there is
// no history (an archive, a shallow clone) it returns the present ones: then only values change by the upgrade.
func before(t *testing.T) (source string) {
	t.Helper()
	commit := "HEAD" // the chart of a working tree with changes
	if _, err := git(t, "diff", "--quiet", "HEAD", "--", chartPath); err == nil {
		last, err := git(t, "log", "-1", "--format=%H", "--", chartPath)
		if err != nil || last == "" {
			t.Logf("there is no history here (%v): the upgrade is from the present chart", err)
			return root
		}
		commit = last + "^"
	}
	name, err := git(t, "rev-parse", "--verify", "--quiet", commit+"^{commit}")
	if err != nil {
		t.Logf("the history here does not reach back to %s (%v): the upgrade is from the present chart", commit, err)
		return root
	}
	t.Logf("the upgrade is from the chart and the images of %s", name)
	source = t.TempDir()
	archive := filepath.Join(t.TempDir(), "before.tar")
	_, err = git(t, "archive", "--output="+archive, name)
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Remove(archive))
	return source
}

func git(t *testing.T, args ...string) (string, error) {
	t.Helper()
	// Root runs this, and the checkout may be another user's.
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*"}, args...)...)
	cmd.Dir = root
	// git looks for a repository in the folders above, and an archive may lie in somebody else's.
	top, err := filepath.Abs(root)
	require.NoError(t, err)
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(top))
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
