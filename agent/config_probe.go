package agent

import "headstart.dev/readiness"

// ProbeType names a probe family.
type ProbeType string

// The probe families.
const (
	ProbeCNI     ProbeType = "cni"
	ProbeCSI     ProbeType = "csi"
	ProbeGPU     ProbeType = "gpu"
	ProbeEFA     ProbeType = "efa"
	ProbeNeuron  ProbeType = "neuron"
	ProbeDRA     ProbeType = "dra"
	ProbeSystemd ProbeType = "systemd"
	ProbeHTTP    ProbeType = "http"
	ProbeTCP     ProbeType = "tcp"
	ProbeGRPC    ProbeType = "grpc"
	ProbeUnix    ProbeType = "unix"
	ProbeFile    ProbeType = "file"
	ProbeExec    ProbeType = "exec"
)

// ProbeMode says what a probe does once it has succeeded.
type ProbeMode string

// The probe modes.
const (
	// ModeContinuous goes on looking, every Period and whenever something changes.
	ModeContinuous ProbeMode = "continuous"
	// ModeBootstrapOnly stops for this boot.
	ModeBootstrapOnly ProbeMode = "bootstrap-only"
)

// Probe is one thing that the node's pods depend on. Fields that do not belong to its Type are refused.
type Probe struct {
	// Name gives the condition its type: my-agent is published as headstart.dev/MyAgentReady.
	Name string    `json:"name"`
	Type ProbeType `json:"type"`
	Mode ProbeMode `json:"mode,omitempty"`

	// InitialDelay is the time between the start of the agent and the first look.
	InitialDelay Duration `json:"initialDelay,omitzero"`
	// Period is the time between two looks at something that is ready; what is not ready yet is looked at twice as
	// often, at least every 250ms.
	Period Duration `json:"period,omitzero"`
	// Timeout bounds one look.
	Timeout Duration `json:"timeout,omitzero"`
	// SuccessThreshold is how many looks in a row must succeed to turn False into True.
	SuccessThreshold int `json:"successThreshold,omitempty"`
	// FailureThreshold is how many looks in a row must fail to turn True into False.
	FailureThreshold int `json:"failureThreshold,omitempty"`

	// Plugin (cni) is auto, aws-vpc-cni, cilium, calico or generic.
	Plugin string `json:"plugin,omitempty"`
	// ConfDir (cni) is where the plugin's conflist appears.
	ConfDir string `json:"confDir,omitempty"`
	// Drivers (csi, dra) are the names of the drivers that must answer.
	Drivers []string `json:"drivers,omitempty"`
	// KubeletDir (csi, dra, gpu, neuron) is the kubelet's root folder; the default is the config's.
	KubeletDir string `json:"kubeletDir,omitempty"`
	// MinDevices (gpu, efa, neuron) is how many devices must work; 0 means as many as the PCI bus shows.
	MinDevices int `json:"minDevices,omitempty"`
	// DevicePlugin (gpu, neuron) says that a device plugin hands the devices to the kubelet, and that pods get none before it does;
	// false where a DRA driver hands them out. The default is true.
	DevicePlugin *bool `json:"devicePlugin,omitempty"`
	// IgnoreXIDs (gpu) are faults that the driver reports by number (XID) and that say nothing of the device, besides those
	// of applications, which never count.
	IgnoreXIDs []uint64 `json:"ignoreXIDs,omitempty"`
	// Unit (systemd) is the unit that must be active.
	Unit string `json:"unit,omitempty"`
	// URL (http) must answer 200 to 399.
	URL string `json:"url,omitempty"`
	// Address (tcp, grpc) is host:port; grpc takes unix:///path too. That of a cni probe is where its plugin answers, if not
	// where the plugin's own manifests put it: a URL, unix:///path or host:port.
	Address string `json:"address,omitempty"`
	// Service (grpc) is the service whose health is asked for; empty means the server's.
	Service string `json:"service,omitempty"`
	// Path (unix, file) is a socket that must accept a connection, or a file that must exist.
	Path string `json:"path,omitempty"`
	// Command (exec) must exit 0.
	Command []string `json:"command,omitempty"`
	// AllowExec (exec) permits this one probe, as the field of the same name above permits all.
	AllowExec bool `json:"allowExec,omitempty"`
}

// ConditionType is the type under which the probe's result is published.
func (p Probe) ConditionType() string {
	switch p.Name {
	case "cni":
		return readiness.ConditionCNIReady
	case "csi":
		return readiness.ConditionCSIReady
	case "gpu":
		return readiness.ConditionGPUReady
	}
	return readiness.Domain + "/" + pascalCase(p.Name) + "Ready"
}

// pascalCase turns a DNS label into the form of a condition type: my-agent into MyAgent.
func pascalCase(name string) string {
	out := make([]byte, 0, len(name))
	upper := true
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '-':
			upper = true
			continue
		case upper && c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		}
		upper = false
		out = append(out, c)
	}
	return string(out)
}
