package agent

import (
	"os"
	"path/filepath"
)

// layout is where a distribution of Kubernetes keeps what the agent looks at.
type layout struct {
	// marker is a path that only nodes of this distribution have.
	marker string
	// kubeletDir, containerd and confDir are the kubelet's root, the runtime's socket and its folder of network configs.
	kubeletDir, containerd, confDir string
}

// usual is the layout of kubeadm, EKS, GKE, AKS, Bottlerocket and most others.
var usual = layout{kubeletDir: "/var/lib/kubelet", containerd: "/run/containerd/containerd.sock", confDir: "/etc/cni/net.d"}

// layouts are those that differ. Sources: k3s-io/k3s pkg/agent/config/config.go@v1.34, rancher/rke2 docs (data-dir),
// k0sproject/k0s pkg/config/cli.go@v1.34, canonical/microk8s microk8s-resources/default-args@1.34.
var layouts = []layout{
	{
		marker: "/var/lib/rancher/rke2/agent", kubeletDir: "/var/lib/kubelet",
		containerd: "/run/k3s/containerd/containerd.sock", confDir: "/etc/cni/net.d",
	},
	{
		marker: "/var/lib/rancher/k3s/agent", kubeletDir: "/var/lib/kubelet",
		containerd: "/run/k3s/containerd/containerd.sock", confDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
	},
	{
		marker: "/var/lib/k0s", kubeletDir: "/var/lib/k0s/kubelet",
		containerd: "/run/k0s/containerd.sock", confDir: "/etc/cni/net.d",
	},
	{
		marker: "/var/snap/microk8s/current", kubeletDir: "/var/snap/microk8s/common/var/lib/kubelet",
		containerd: "/var/snap/microk8s/common/run/containerd.sock", confDir: "/var/snap/microk8s/current/args/cni-network",
	},
}

// findLayout looks which distribution a machine's root belongs to. Of its paths those count that are there, or of which
// the usual one is not there either: a node may have the usual runtime under another distribution's kubelet.
func findLayout(root string) layout {
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	for _, l := range layouts {
		if !there(l.marker) {
			continue
		}
		choose := func(theirs, usual string) string {
			if there(theirs) || !there(usual) {
				return theirs
			}
			return usual
		}
		return layout{
			marker: l.marker, kubeletDir: choose(l.kubeletDir, usual.kubeletDir),
			containerd: choose(l.containerd, usual.containerd), confDir: choose(l.confDir, usual.confDir),
		}
	}
	return usual
}
