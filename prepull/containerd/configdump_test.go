package containerd

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseConfigDumpOfEveryVersion(t *testing.T) {
	want := criSettings{
		discard: true, configPath: "/a:/b", root: "/data", address: "/run/c.sock", snapshotter: "overlayfs", overlayRoot: "/fast",
	}
	for name, dump := range map[string]string{
		"version 4": `
root = '/data'
[plugins.'io.containerd.server.v1.grpc']
address = '/run/c.sock'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
discard_unpacked_layers = true
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/a:/b'
[plugins.'io.containerd.snapshotter.v1.overlayfs']
root_path = '/fast'`,
		"version 3": `
root = '/data'
[grpc]
address = '/run/c.sock'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
discard_unpacked_layers = true
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/a:/b'
[plugins.'io.containerd.snapshotter.v1.overlayfs']
root_path = '/fast'`,
		"version 2": `
root = "/data"
[grpc]
address = "/run/c.sock"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
discard_unpacked_layers = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/a:/b"
[plugins."io.containerd.snapshotter.v1.overlayfs"]
root_path = "/fast"`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseConfigDump([]byte(dump))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}
