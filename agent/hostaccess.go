package agent

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"headstart.dev/agent/probe"
)

// HostPath is a folder of the host that an agent in a container must see under its own path.
type HostPath struct {
	Path string
	// Writable says that the agent writes there.
	Writable bool
}

// HostPaths are the folders that an agent of this config looks into or writes to, without what a container has of its own
// (/proc, /sys), sorted by path, each once. What an agent writes to containerd's root under the direct engine is not among
// them: that is another right. It is the one source of the mounts of whatever runs the agent in a container.
func HostPaths(cfg Config) ([]HostPath, error) {
	writable := map[string]bool{
		cfg.StateDir: true,
		// The folder, not the socket: containerd makes a new one when it starts.
		filepath.Dir(strings.TrimPrefix(cfg.Containerd.Address, "unix://")): false,
		// The kubelet's PodsAPI, on from Kubernetes 1.37: by it the agent sees the DaemonSets that rules require.
		filepath.Join(cfg.KubeletDir, "pods-api"): false,
	}
	if len(cfg.Register.Taints) > 0 {
		writable[filepath.Dir(cfg.Register.KubeletConfigDir)] = true
	}
	if len(cfg.Register.Labels) > 0 {
		writable[filepath.Dir(cfg.Register.KubeletArgsFile)] = true
	}
	if cfg.Registry.CredentialProviderConfig != "" {
		read(writable, filepath.Dir(cfg.Registry.CredentialProviderConfig), cfg.Registry.CredentialProviderBinDir)
	}
	for _, p := range cfg.Probes {
		checker, err := newChecker(cfg, p, nil)
		if err != nil {
			return nil, err
		}
		if host, ok := checker.(probe.HostPather); ok {
			read(writable, host.HostPaths()...)
		}
	}
	out := make([]HostPath, 0, len(writable))
	for _, path := range slices.Sorted(maps.Keys(writable)) {
		if !ofContainer(path) {
			out = append(out, HostPath{path, writable[path]})
		}
	}
	return out, nil
}

// read adds folders that are only read, unless they are there already.
func read(writable map[string]bool, dirs ...string) {
	for _, dir := range dirs {
		dir = filepath.Clean(dir)
		if _, there := writable[dir]; !there {
			writable[dir] = false
		}
	}
}

// ofContainer says that a container has this folder as the host has it.
func ofContainer(path string) bool {
	return path == "/proc" || path == "/sys" || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/")
}

// Capabilities are what an agent of this config needs beside being root without any, sorted. The direct engine needs more.
func Capabilities(cfg Config) []string {
	needed := map[string]bool{}
	for _, p := range cfg.Probes {
		for _, capability := range capabilitiesOf(p) {
			needed[capability] = true
		}
	}
	return slices.Sorted(maps.Keys(needed))
}

func capabilitiesOf(p Probe) []string {
	switch p.Type {
	case ProbeExec: // it runs as nobody, and is killed with its children at the deadline
		return []string{"KILL", "SETGID", "SETUID"}
	case ProbeUnix: // sockets belong to whoever serves them
		return []string{"DAC_OVERRIDE"}
	case ProbeGRPC:
		if strings.HasPrefix(p.Address, "unix://") {
			return []string{"DAC_OVERRIDE"}
		}
	case ProbeFile: // in a folder that is open to its owner alone
		return []string{"DAC_READ_SEARCH"}
	case ProbeCNI, ProbeCSI, ProbeGPU, ProbeNeuron, ProbeEFA, ProbeDRA, ProbeSystemd, ProbeHTTP, ProbeTCP: // root's, or no file
	}
	return nil
}

// FieldsOfProbes are the fields of Probe that belong to some types only, by type.
func FieldsOfProbes() map[ProbeType][]string { return maps.Clone(fieldsOfType) }
