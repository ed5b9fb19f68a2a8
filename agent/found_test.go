package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindLayout(t *testing.T) {
	for name, tc := range map[string]struct {
		paths                           []string
		kubeletDir, containerd, confDir string
	}{
		"nothing yet": {nil, "/var/lib/kubelet", "/run/containerd/containerd.sock", "/etc/cni/net.d"},
		"AL2023":      {[]string{"/var/lib/kubelet", "/run/containerd/containerd.sock"}, "/var/lib/kubelet", "/run/containerd/containerd.sock", "/etc/cni/net.d"},
		"k3s": {
			[]string{"/var/lib/rancher/k3s/agent/etc/cni/net.d", "/run/k3s/containerd/containerd.sock", "/run/containerd/containerd.sock", "/etc/cni/net.d"},
			"/var/lib/kubelet", "/run/k3s/containerd/containerd.sock", "/var/lib/rancher/k3s/agent/etc/cni/net.d",
		},
		"k3s before its containerd": {
			[]string{"/var/lib/rancher/k3s/agent/etc/cni/net.d"},
			"/var/lib/kubelet", "/run/k3s/containerd/containerd.sock", "/var/lib/rancher/k3s/agent/etc/cni/net.d",
		},
		"k3s on the host's own containerd": {
			[]string{"/var/lib/rancher/k3s/agent", "/run/containerd/containerd.sock", "/etc/cni/net.d"},
			"/var/lib/kubelet", "/run/containerd/containerd.sock", "/etc/cni/net.d",
		},
		"RKE2":     {[]string{"/var/lib/rancher/rke2/agent"}, "/var/lib/kubelet", "/run/k3s/containerd/containerd.sock", "/etc/cni/net.d"},
		"k0s":      {[]string{"/var/lib/k0s/kubelet", "/run/k0s/containerd.sock"}, "/var/lib/k0s/kubelet", "/run/k0s/containerd.sock", "/etc/cni/net.d"},
		"MicroK8s": {[]string{"/var/snap/microk8s/current"}, "/var/snap/microk8s/common/var/lib/kubelet", "/var/snap/microk8s/common/run/containerd.sock", "/var/snap/microk8s/current/args/cni-network"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, path := range tc.paths {
				require.NoError(t, os.MkdirAll(filepath.Join(root, path), 0o755))
			}
			got := findLayout(root)
			require.Equal(t, tc.kubeletDir, got.kubeletDir)
			require.Equal(t, tc.containerd, got.containerd)
			require.Equal(t, tc.confDir, got.confDir)
		})
	}
}

func TestWhatTheFileSaysWinsOverWhatIsFound(t *testing.T) {
	k0s := layout{kubeletDir: "/var/lib/k0s/kubelet", containerd: "/run/k0s/containerd.sock", confDir: "/etc/cni/net.d"}
	const head = "apiVersion: " + APIVersion + "\nkind: " + Kind + "\nprobes: [{name: cni, type: cni}, {name: csi, type: csi, drivers: [a]}]\n"
	found, err := parse([]byte(head), k0s)
	require.NoError(t, err)
	require.Equal(t, k0s.containerd, found.Containerd.Address)
	require.Equal(t, k0s.kubeletDir, found.KubeletDir)
	require.Equal(t, k0s.kubeletDir, found.Probes[1].KubeletDir)
	told, err := parse([]byte(head+"kubeletDir: /k\ncontainerd: {address: /c.sock}\n"), k0s)
	require.NoError(t, err)
	require.Equal(t, "/c.sock", told.Containerd.Address)
	require.Equal(t, "/k", told.Probes[1].KubeletDir)
}
