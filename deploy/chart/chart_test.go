package chart_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/chart"
)

const deploy = ".."

func TestGeneratedFilesAreFresh(t *testing.T) {
	want, err := chart.Files(os.DirFS(deploy))
	require.NoError(t, err)
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(deploy, name))
		require.NoError(t, err, `run "make generate"`)
		require.Equal(t, string(content), string(got), `%s is stale: run "make generate"`, name)
	}
	for _, name := range files(t, deploy) {
		if chart.IsGenerated(name) {
			require.Contains(t, want, name, `nobody makes %s any more: run "make generate"`, name)
		}
	}
}

// Some of those that fetch charts from Git drop symbolic links, and Helm warns of each.
func TestWhatIsInstalledHasNoSymbolicLinks(t *testing.T) {
	for _, name := range files(t, deploy) {
		info, err := os.Lstat(filepath.Join(deploy, name))
		require.NoError(t, err)
		require.True(t, info.Mode().IsRegular(), "%s is no regular file", name)
	}
}

func files(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(root, path)
			out = append(out, filepath.ToSlash(name))
		}
		return err
	}))
	require.NotEmpty(t, out)
	return out
}
