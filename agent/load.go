package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// maxConfigBytes is far more than any config file needs: what is larger is not one.
const maxConfigBytes = 1 << 20

// DefaultMinFree leaves the kubelet room below its own thresholds for image garbage collection and eviction.
const DefaultMinFree = "10%"

// Load reads and validates a config file. Every error names the file, the field and the way out, in one line.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	if info.Size() > maxConfigBytes || !info.Mode().IsRegular() {
		return Config{}, fmt.Errorf("read config %s: not a regular file of at most 1 MiB", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	cfg, err := parse(raw, findLayout("/"))
	if err != nil {
		return Config{}, fmt.Errorf("config %s: %w", path, err)
	}
	return cfg, nil
}

// Parse decodes a config strictly, fills in the defaults and validates the result. It looks at nothing else: the same
// text gives the same config on every machine.
func Parse(raw []byte) (Config, error) { return parse(raw, usual) }

// parse fills in what a file leaves out from where the machine has it.
func parse(raw []byte, at layout) (Config, error) {
	var cfg Config
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return Config{}, fmt.Errorf("parse YAML: %s", oneLine(err))
	}
	strict, err := json.UnmarshalStrict(asJSON, &cfg)
	if err != nil {
		return Config{}, fmt.Errorf("decode: %s", oneLine(err))
	}
	if len(strict) > 0 {
		return Config{}, fmt.Errorf("%w: check the spelling, or remove it", errors.Join(strict[0]))
	}
	cfg.setDefaults(at)
	if err := cfg.validate(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// Default is the config of an agent that was given no file: it probes the CNI plugin and the GPUs, and pulls nothing.
func Default() Config {
	cfg := Config{
		APIVersion: APIVersion, Kind: Kind,
		Probes: []Probe{{Name: "cni", Type: ProbeCNI}, {Name: "gpu", Type: ProbeGPU}},
	}
	cfg.setDefaults(findLayout("/"))
	return cfg
}

// oneLine keeps a parser's message on the one line that the user sees.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

func (c *Config) setDefaults(at layout) {
	setDefault(&c.StateDir, "/run/headstart")
	setDefault(&c.KubeletDir, at.kubeletDir)
	setDefault(&c.Containerd.Address, at.containerd)
	setDefault(&c.Containerd.Namespace, "k8s.io")
	setDefault(&c.Containerd.Snapshotter, "auto")
	setDefault(&c.Pull.MinFree, DefaultMinFree)
	setDefault(&c.Metrics.BindAddress, "127.0.0.1:9464")
	setDefault(&c.Register.KubeletConfigDir, "/etc/kubernetes/kubelet/config.json.d")
	setDefault(&c.Register.KubeletArgsFile, "/run/headstart/kubelet.env")
	for i := range c.Probes {
		c.Probes[i].setDefaults(c.KubeletDir, at.confDir)
	}
}

// setDefaults follows corev1.Probe: period 10s, thresholds 1 and 3. The timeout is that of corev1.Probe too, but for
// NVML: a healthy driver takes seconds to initialise eight GPUs without persistence mode.
func (p *Probe) setDefaults(kubeletDir, confDir string) {
	setDefault(&p.Mode, ModeContinuous)
	setDefault(&p.SuccessThreshold, 1)
	setDefault(&p.FailureThreshold, 3)
	if p.Period.IsZero() {
		p.Period.Duration = 10 * time.Second
	}
	if p.Timeout.IsZero() {
		p.Timeout.Duration = time.Second
		if p.Type == ProbeGPU {
			p.Timeout.Duration = 20 * time.Second
		}
	}
	switch p.Type {
	case ProbeCNI:
		setDefault(&p.Plugin, "auto")
		setDefault(&p.ConfDir, confDir)
	case ProbeCSI, ProbeDRA, ProbeGPU, ProbeNeuron:
		setDefault(&p.KubeletDir, kubeletDir)
	default:
	}
}

// setDefault gives a field its default where the file says nothing.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
