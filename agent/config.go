package agent

import (
	corev1 "k8s.io/api/core/v1"

	"headstart.dev/prepull"
)

// The type of the agent's config file.
const (
	APIVersion = "agent.headstart.dev/v1alpha1"
	Kind       = "AgentConfig"
)

// Config is the agent's config file, /etc/headstart/agent.yaml. Load fills in every default, so a zero value in a
// loaded Config means what the field's comment says and never "unset".
type Config struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// NodeName is the name of this node's Node object; empty means the kubelet's.
	NodeName string `json:"nodeName,omitempty"`
	// Kubeconfig reaches the API server; empty means in-cluster, else /var/lib/kubelet/kubeconfig.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// StateDir holds the timeline file and the lock by which agents of one node hand over to each other.
	StateDir string `json:"stateDir,omitempty"`
	// KubeletDir is the kubelet's root folder, in which its sockets are.
	KubeletDir string          `json:"kubeletDir,omitempty"`
	Containerd Containerd      `json:"containerd,omitzero"`
	Images     []prepull.Image `json:"images,omitempty"`
	Registry   Registry        `json:"registry,omitzero"`
	Pull       Pull            `json:"pull,omitzero"`
	// AllowExec permits probes of type exec: they run a command of this file as nobody.
	AllowExec bool     `json:"allowExec,omitempty"`
	Probes    []Probe  `json:"probes,omitempty"`
	Register  Register `json:"register,omitzero"`
	Metrics   Metrics  `json:"metrics,omitzero"`
}

// Containerd says where images go.
type Containerd struct {
	// Address is the path of containerd's socket.
	Address string `json:"address,omitempty"`
	// Namespace is the one that the CRI uses.
	Namespace string `json:"namespace,omitempty"`
	// Snapshotter is "auto" (the CRI's own) or a name.
	Snapshotter string `json:"snapshotter,omitempty"`
}

// Registry says how to reach registries.
type Registry struct {
	// CredentialProviderConfig is a kubelet CredentialProviderConfig file; empty for none.
	CredentialProviderConfig string `json:"credentialProviderConfig,omitempty"`
	// CredentialProviderBinDir is where its plugins lie.
	CredentialProviderBinDir string `json:"credentialProviderBinDir,omitempty"`
	// Rewrites are tried in order; the first whose From is a prefix of the image wins.
	Rewrites []Rewrite `json:"rewrites,omitempty"`
}

// Rewrite fetches images whose name begins with From from To instead, under their own name.
type Rewrite struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Pull bounds what pulls may use.
type Pull struct {
	// MaxConcurrentDownloads is how many requests run at once; 0 means as many as the machine is good for.
	MaxConcurrentDownloads int `json:"maxConcurrentDownloads,omitempty"`
	// ChunkSize is the size of one ranged request; 0 means auto.
	ChunkSize Quantity `json:"chunkSize,omitzero"`
	// Bandwidth is bytes a second; empty means no limit.
	Bandwidth Quantity `json:"bandwidth,omitzero"`
	// MinFree is what has to stay free on the image filesystem, a share ("10%") or a size ("20Gi").
	MinFree string `json:"minFree,omitempty"`
}

// Register is what the kubelet registers its Node with. The agent writes it before the kubelet starts; it never touches
// the taints or labels of a registered Node.
type Register struct {
	Taints []corev1.Taint    `json:"taints,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// KubeletConfigDir is the kubelet's --config-dir: the taints go there as 90-headstart.conf, joined with those that
	// other files of that folder register with, because the kubelet takes the last list whole.
	KubeletConfigDir string `json:"kubeletConfigDir,omitempty"`
	// KubeletArgsFile is an environment file that sets HEADSTART_KUBELET_ARGS to the --node-labels flag, because the
	// kubelet has no config field for labels.
	KubeletArgsFile string `json:"kubeletArgsFile,omitempty"`
}

// Metrics says where Prometheus metrics are served.
type Metrics struct {
	// BindAddress is host:port; "0" turns metrics off.
	BindAddress string `json:"bindAddress,omitempty"`
}
