package agent_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent"
)

func TestHostPathsFollowTheConfig(t *testing.T) {
	base := []agent.HostPath{{"/run/containerd", false}, {"/run/headstart", true}, {"/var/lib/kubelet/pods-api", false}}
	for name, tc := range map[string]struct {
		config string
		want   []agent.HostPath
		rights []string
	}{
		"nothing":              {"", nil, nil},
		"a socket as a URL":    {"containerd: {address: unix:///run/k3s/containerd/containerd.sock}", []agent.HostPath{{"/run/k3s/containerd", false}}, nil},
		"EFA":                  {"probes: [{name: efa, type: efa}]", []agent.HostPath{{"/dev/infiniband", false}}, nil},
		"systemd":              {"probes: [{name: a, type: systemd, unit: a.service}]", []agent.HostPath{{"/run/dbus", false}}, nil},
		"a kubelet's own root": {"kubeletDir: /data/kubelet\nprobes: [{name: csi, type: csi, drivers: [a]}]", []agent.HostPath{{"/data/kubelet/plugins", false}, {"/data/kubelet/plugins_registry", false}, {"/data/kubelet/pods-api", false}}, nil},
		"a probe's own root":   {"probes: [{name: csi, type: csi, drivers: [a], kubeletDir: /k}]", []agent.HostPath{{"/k/plugins", false}, {"/k/plugins_registry", false}}, nil},
		"GPU":                  {"probes: [{name: gpu, type: gpu}]", []agent.HostPath{{"/run/dbus", false}, {"/run/nvidia", false}, {"/var/lib/kubelet/device-plugins", false}, {"/var/lib/kubelet/pod-resources", false}}, nil},
		"Neuron":               {"probes: [{name: neuron, type: neuron}]", []agent.HostPath{{"/var/lib/kubelet/device-plugins", false}, {"/var/lib/kubelet/pod-resources", false}}, nil},
		"DRA":                  {"probes: [{name: dra, type: dra, drivers: [gpu.nvidia.com]}]", []agent.HostPath{{"/var/lib/kubelet/plugins", false}, {"/var/lib/kubelet/plugins_registry", false}}, nil},
		"any plugin":           {"probes: [{name: cni, type: cni}]", []agent.HostPath{{"/etc/cni/net.d", false}, {"/var/run/aws-node", false}, {"/var/run/cilium", false}}, nil},
		"one plugin":           {"probes: [{name: cni, type: cni, plugin: calico, confDir: /c}]", []agent.HostPath{{"/c", false}}, nil},
		"the network":          {"probes: [{name: a, type: http, url: 'http://a'}, {name: b, type: tcp, address: 'a:1'}, {name: c, type: grpc, address: 'a:1'}]", nil, nil},
		"sockets":              {"probes: [{name: a, type: unix, path: /run/a/s}, {name: b, type: grpc, address: 'unix:///run/b/s'}]", []agent.HostPath{{"/run/a", false}, {"/run/b", false}}, []string{"DAC_OVERRIDE"}},
		"a file":               {"probes: [{name: a, type: file, path: /opt/a/ready}, {name: b, type: file, path: /proc/sys/x}]", []agent.HostPath{{"/opt/a", false}}, []string{"DAC_READ_SEARCH"}},
		"a command":            {"allowExec: true\nprobes: [{name: a, type: exec, command: [/opt/bin/a]}]", []agent.HostPath{{"/opt/bin", false}}, []string{"KILL", "SETGID", "SETUID"}},
		"taints":               {"register: {taints: [{key: a/b, effect: NoSchedule}]}", []agent.HostPath{{"/etc/kubernetes/kubelet", true}}, nil},
		"labels":               {"register: {labels: {a: b}, kubeletArgsFile: /etc/k/env}", []agent.HostPath{{"/etc/k", true}}, nil},
		"credentials":          {"registry: {credentialProviderConfig: /etc/p/config.json, credentialProviderBinDir: /opt/p}", []agent.HostPath{{"/etc/p", false}, {"/opt/p", false}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := agent.Parse([]byte(header + tc.config))
			require.NoError(t, err)
			got, err := agent.HostPaths(cfg)
			require.NoError(t, err)
			for _, path := range tc.want {
				require.Contains(t, got, path)
			}
			for _, path := range got {
				require.True(t, contains(tc.want, path) || contains(base, path), "%v is not needed", path)
			}
			require.ElementsMatch(t, tc.rights, agent.Capabilities(cfg))
		})
	}
}

func contains(list []agent.HostPath, path agent.HostPath) bool {
	return slices.Contains(list, path)
}
