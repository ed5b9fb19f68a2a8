package pull_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/test/testenv"
)

// TestDiscovery asks every containerd what it is, by the way that it has: the newest tells all over its socket, the
// others by the dump of their config, and one whose config cannot be read is taken to keep its layers.
func TestDiscovery(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	for name, tc := range map[string]struct {
		release testenv.ContainerdRelease
		version string
		from    string
		rebase  bool
	}{
		"newest": {"", "2.4.2", "introspection", true},
		"2.2":    {testenv.Containerd22, "2.2.4", "configDump", true},
		"1.7":    {testenv.Containerd17, "1.7.35", "configDump", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, keep := range []bool{true, false} {
				ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg, Release: tc.release, KeepLayers: keep})
				found, err := newStore(t, ctd, nil).Discover(t.Context())
				require.NoError(t, err)
				require.Contains(t, found.Version, tc.version)
				require.Equal(t, "overlayfs", found.Snapshotter)
				require.Equal(t, "cri", found.SnapshotterFrom)
				require.Equal(t, ctd.Root()+"/io.containerd.snapshotter.v1.overlayfs", found.SnapshotterRoot)
				require.Equal(t, !keep, found.DiscardLayers)
				require.Equal(t, []string{ctd.CertsDir()}, found.HostDirs)
				require.Equal(t, tc.from, found.SettingsFrom)
				if tc.rebase {
					require.Contains(t, found.Capabilities, "rebase")
				} else {
					require.NotContains(t, found.Capabilities, "rebase")
				}
				if keep || tc.from != "configDump" {
					continue
				}
				require.NoError(t, os.WriteFile(ctd.ConfigPath(), []byte("half a"), 0o600))
				found, err = newStore(t, ctd, nil).Discover(t.Context())
				require.NoError(t, err)
				require.Equal(t, "default", found.SettingsFrom)
				require.False(t, found.DiscardLayers, "keeping what need not be kept loses nothing")
				require.Equal(t, []string{"/etc/containerd/certs.d", "/etc/docker/certs.d"}, found.HostDirs)
			}
		})
	}
}
