package install_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/install"
	"headstart.dev/deploy/systemd"
)

func binary(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "headstart-agent")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func read(t *testing.T, root, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	require.NoError(t, err)
	return string(text)
}

func written(changes []install.Change) []string {
	var out []string
	for _, c := range changes {
		if c.Written {
			out = append(out, c.Path)
		}
	}
	return out
}

func TestInstall(t *testing.T) {
	root := t.TempDir()
	changes, err := install.Install(root, binary(t, "one"))
	require.NoError(t, err)
	require.Len(t, written(changes), 4, "an empty host gets all")
	require.Equal(t, "one", read(t, root, "usr/local/bin/headstart-agent"))
	require.Equal(t, systemd.Unit, read(t, root, "etc/systemd/system/headstart-agent.service"))
	require.Contains(t, read(t, root, "etc/headstart/agent.yaml"), "kind: AgentConfig")
	target, err := os.Readlink(filepath.Join(root, "etc/systemd/system/containerd.service.wants/headstart-agent.service"))
	require.NoError(t, err)
	require.Equal(t, "../headstart-agent.service", target)
	info, err := os.Stat(filepath.Join(root, "usr/local/bin/headstart-agent"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
}

func TestInstallTwiceWritesOnce(t *testing.T) {
	root, self := t.TempDir(), binary(t, "one")
	_, err := install.Install(root, self)
	require.NoError(t, err)
	changes, err := install.Install(root, self)
	require.NoError(t, err)
	require.Empty(t, written(changes))
}

func TestInstallUpgrades(t *testing.T) {
	cases := map[string]struct {
		damage func(t *testing.T, root string)
		want   []string
	}{
		"a new binary of the same size": {func(*testing.T, string) {}, []string{"/usr/local/bin/headstart-agent"}},
		"a unit that somebody edited": {func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/headstart-agent.service"), []byte("x"), 0o600))
		}, []string{"/usr/local/bin/headstart-agent", "/etc/systemd/system/headstart-agent.service"}},
		"what a crash has left half-written": {func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(root, "usr/local/bin/headstart-agent.headstart-new"), []byte("ha"), 0o600))
		}, []string{"/usr/local/bin/headstart-agent"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			_, err := install.Install(root, binary(t, "one"))
			require.NoError(t, err)
			config := filepath.Join(root, "etc/headstart/agent.yaml")
			require.NoError(t, os.WriteFile(config, []byte("mine"), 0o600))
			tc.damage(t, root)
			changes, err := install.Install(root, binary(t, "two"))
			require.NoError(t, err)
			require.Equal(t, tc.want, written(changes))
			require.Equal(t, "two", read(t, root, "usr/local/bin/headstart-agent"))
			require.Equal(t, "mine", read(t, root, "etc/headstart/agent.yaml"), "the user's config stays")
			left, err := filepath.Glob(filepath.Join(root, "usr/local/bin/*.headstart-new"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestInstallNeverLeavesTheRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "etc")))
	_, err := install.Install(root, binary(t, "one"))
	require.ErrorContains(t, err, "/etc/headstart")
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestInstallWithoutRootSaysSo(t *testing.T) {
	_, err := install.Install(filepath.Join(t.TempDir(), "host"), binary(t, "one"))
	require.ErrorContains(t, err, "open host root")
}
