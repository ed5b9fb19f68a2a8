package bottlerocket

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	corev1 "k8s.io/api/core/v1"
)

// ContainerName is the host container's name.
const ContainerName = "headstart"

// Where the host's things lie in a superpowered host container: its root is mounted, read-only, at RootFS.
// Source: bottlerocket-core-kit sources/host-ctr/cmd/host-ctr/main.go, packages/kubernetes-1.30/kubelet-exec-start-conf.
const (
	RootFS                   = "/.bottlerocket/rootfs"
	ContainerdSocket         = RootFS + "/run/containerd/containerd.sock"
	CredentialProviderConfig = RootFS + "/etc/kubernetes/kubelet/credential-provider-config.yaml"
	CredentialProviderBinDir = RootFS + "/usr/libexec/kubernetes/kubelet/plugins"
	// UserDataFile holds the container's user-data, decoded.
	UserDataFile = "/.bottlerocket/host-containers/current/user-data"
)

// Settings is what Render writes.
type Settings struct {
	// Image is the agent's image; host-ctr pulls it with the instance's own ECR credentials.
	Image string
	// Config is the agent's config file; it becomes the host container's user-data.
	Config []byte
	// FastImagePull selects the SOCI snapshotter in its parallel, eager mode.
	FastImagePull bool
	// Taints and Labels are registered by kubelet. Karpenter overwrites the one and merges the other.
	Taints []corev1.Taint
	Labels map[string]string
	// Cluster is nil where somebody else (Karpenter) fills it in.
	Cluster *Cluster
}

// Cluster is the cluster to join.
type Cluster struct {
	Name        string
	APIServer   string
	Certificate string // base64 of the CA in PEM
}

type document struct {
	Settings settings `toml:"settings"`
}

type settings struct {
	HostContainers          map[string]hostContainer `toml:"host-containers"`
	Kubernetes              *kubernetes              `toml:"kubernetes,omitempty"`
	ContainerRuntime        *containerRuntime        `toml:"container-runtime,omitempty"`
	ContainerRuntimePlugins *containerRuntimePlugins `toml:"container-runtime-plugins,omitempty"`
}

type hostContainer struct {
	Enabled      bool   `toml:"enabled"`
	Superpowered bool   `toml:"superpowered"`
	Source       string `toml:"source"`
	UserData     string `toml:"user-data"`
}

// kubernetes has only keys that Karpenter's own struct knows: it drops all others when it writes userData anew. The
// credential provider is left to the defaults: it is on, and a list of patterns here would replace the region's own.
// Source: aws/karpenter-provider-aws pkg/providers/amifamily/bootstrap/bottlerocketsettings.go.
type kubernetes struct {
	ClusterName        string              `toml:"cluster-name,omitempty"`
	APIServer          string              `toml:"api-server,omitempty"`
	ClusterCertificate string              `toml:"cluster-certificate,omitempty"`
	NodeLabels         map[string]string   `toml:"node-labels,omitempty"`
	NodeTaints         map[string][]string `toml:"node-taints,omitempty"`
}

type containerRuntime struct {
	Snapshotter string `toml:"snapshotter"`
}

type containerRuntimePlugins struct {
	SOCI sociSnapshotter `toml:"soci-snapshotter"`
}

type sociSnapshotter struct {
	PullMode string `toml:"pull-mode"`
}

// Render returns userData. The same settings give the same bytes.
func Render(s Settings) (string, error) {
	doc := document{Settings: settings{
		HostContainers: map[string]hostContainer{ContainerName: {
			Enabled: true, Superpowered: true, Source: s.Image, UserData: base64.StdEncoding.EncodeToString(s.Config),
		}},
		Kubernetes: kubernetesSettings(s),
	}}
	if s.FastImagePull {
		doc.Settings.ContainerRuntime = &containerRuntime{Snapshotter: "soci"}
		doc.Settings.ContainerRuntimePlugins = &containerRuntimePlugins{SOCI: sociSnapshotter{PullMode: "parallel-pull-unpack"}}
	}
	var out strings.Builder
	enc := toml.NewEncoder(&out)
	enc.SetTablesInline(false)
	if err := enc.Encode(doc); err != nil {
		return "", fmt.Errorf("render Bottlerocket settings: %w", err)
	}
	return header + out.String(), nil
}

const header = "# Headstart, written by \"kubectl headstart userdata --os bottlerocket\".\n"

// kubernetesSettings is nil when there is nothing to say, as with Karpenter.
func kubernetesSettings(s Settings) *kubernetes {
	if s.Cluster == nil && len(s.Taints) == 0 && len(s.Labels) == 0 {
		return nil
	}
	k := &kubernetes{NodeLabels: s.Labels}
	if c := s.Cluster; c != nil {
		k.ClusterName, k.APIServer, k.ClusterCertificate = c.Name, c.APIServer, c.Certificate
	}
	for _, t := range s.Taints {
		if k.NodeTaints == nil {
			k.NodeTaints = map[string][]string{}
		}
		k.NodeTaints[t.Key] = append(k.NodeTaints[t.Key], t.Value+":"+string(t.Effect))
	}
	return k
}
