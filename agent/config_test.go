package agent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent"
)

const header = "apiVersion: agent.headstart.dev/v1alpha1\nkind: AgentConfig\n"

func TestParseFillsInDefaults(t *testing.T) {
	cfg, err := agent.Parse([]byte(header + `
images:
- {image: "registry.example/app:v1", priority: 100, required: true, pin: true}
registry:
  credentialProviderConfig: /etc/eks/image-credential-provider/config.json
  credentialProviderBinDir: /etc/eks/image-credential-provider
  rewrites: [{from: docker.io/, to: 111122223333.dkr.ecr.us-east-1.amazonaws.com/docker-hub/}]
pull: {maxConcurrentDownloads: 0, chunkSize: 0, bandwidth: "", minFree: 10%}
probes:
- {name: cni, type: cni, plugin: auto}
- {name: csi, type: csi, drivers: [ebs.csi.aws.com]}
- {name: gpu, type: gpu, minDevices: 0}
- {name: my-agent, type: http, url: "http://127.0.0.1:9999/ready", failureThreshold: 3, period: 250ms}
register: {taints: [{key: readiness.k8s.io/headstart, value: pending, effect: NoSchedule}], labels: {}}
metrics: {bindAddress: 127.0.0.1:9464}
`))
	require.NoError(t, err)
	require.Equal(t, "/run/containerd/containerd.sock", cfg.Containerd.Address)
	require.Equal(t, "/run/headstart", cfg.StateDir)
	require.True(t, cfg.Images[0].Required)
	require.Equal(t, "/etc/cni/net.d", cfg.Probes[0].ConfDir)
	require.Equal(t, "headstart.dev/CNIReady", cfg.Probes[0].ConditionType())
	require.Equal(t, 250*time.Millisecond, cfg.Probes[3].Period.Duration)
	require.Equal(t, time.Second, cfg.Probes[3].Timeout.Duration)
	require.Equal(t, "headstart.dev/MyAgentReady", cfg.Probes[3].ConditionType())
}

func TestParseNamesTheFieldAndTheWayOut(t *testing.T) {
	for name, tc := range map[string]struct{ config, field, way string }{
		"an unknown field":              {"imagez: []", `"imagez"`, "check the spelling"},
		"an unknown field in a list":    {"probes: [{name: a, type: file, path: /x, retries: 3}]", `"probes[0].retries"`, "check the spelling"},
		"a field written twice":         {"nodeName: a\nnodeName: b", `"nodeName"`, ""},
		"another kind":                  {"kind: Pod", "kind", ""},
		"a duration without unit":       {"probes: [{name: a, type: file, path: /x, period: 5}]", "probes[0].period", "250ms or 10s"},
		"a duration with a wrong unit":  {"probes: [{name: a, type: file, path: /x, timeout: 5sec}]", "probes[0].timeout", "250ms or 10s"},
		"a period that is a busy loop":  {"probes: [{name: a, type: file, path: /x, period: 1ms}]", "probes[0].period", "50ms to 1h"},
		"a size with a wrong unit":      {"pull: {chunkSize: 16MB!}", "pull.chunkSize", "16Mi"},
		"a share over everything":       {"pull: {minFree: 110%}", "pull.minFree", "0% to 100%"},
		"an unparsable image":           {"images: [{image: 'Foo:bar:baz'}]", "images[0].image", "registry/name:tag"},
		"a mode that is none":           {"images: [{image: nginx, mode: lazy}]", "images[0].mode", "want Eager, Lazy or Auto"},
		"an image written twice":        {"images: [{image: nginx}, {image: 'docker.io/library/nginx:latest'}]", "images[1].image", "images[0]"},
		"an unknown probe type":         {"probes: [{name: a, type: icmp}]", "probes[0].type", `"http"`},
		"a field of another type":       {"probes: [{name: a, type: tcp, address: 'a:1', url: 'http://x'}]", "probes[0].url", "it has address"},
		"a built-in name":               {"probes: [{name: cni, type: file, path: /x}]", "probes[0].name", "choose another"},
		"the name of the images":        {"probes: [{name: images, type: file, path: /x}]", "probes[0].name", "choose another"},
		"two probes of one condition":   {"probes: [{name: a-b, type: file, path: /x}, {name: a--b, type: file, path: /y}]", "probes[1].name", "headstart.dev/ABReady"},
		"a driver that is a path":       {"probes: [{name: csi, type: csi, drivers: [../../etc]}]", "probes[0].drivers[0]", ""},
		"a relative socket":             {"containerd: {address: containerd.sock}", "containerd.address", "absolute"},
		"a label that stops a kubelet":  {"register: {labels: {nodereadiness.k8s.io/enabled: 'true'}}", "register.labels[nodereadiness.k8s.io/enabled]", "kubelet exits"},
		"a label of the controller":     {"register: {labels: {headstart.dev/cni-ready: 'true'}}", "register.labels[headstart.dev/cni-ready]", "controller"},
		"a taint without effect":        {"register: {taints: [{key: a/b}]}", "register.taints[0].effect", "NoSchedule"},
		"a number that is a word":       {"pull: {maxConcurrentDownloads: many}", "maxConcurrentDownloads", ""},
		"credentials by halves":         {"registry: {credentialProviderConfig: /x}", "registry.credentialProviderBinDir", "together"},
		"an address without port":       {"metrics: {bindAddress: localhost}", "metrics.bindAddress", "host:port"},
		"a relative command":            {"probes: [{name: a, type: exec, command: [check]}]", "probes[0].command[0]", "absolute"},
		"a pattern in place of a unit":  {"probes: [{name: a, type: systemd, unit: 'kube*'}]", "probes[0].unit", "kubelet.service"},
		"a threshold below one":         {"probes: [{name: a, type: file, path: /x, failureThreshold: -1}]", "probes[0].failureThreshold", "1 to 1000"},
		"YAML that is none":             {"images: [", "parse YAML", ""},
		"a list in place of the object": {"probes: {name: a}", "probes", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := header + tc.config
			if strings.HasPrefix(tc.config, "kind") {
				text = "apiVersion: agent.headstart.dev/v1alpha1\n" + tc.config
			}
			_, err := agent.Parse([]byte(text))
			require.ErrorContains(t, err, tc.field)
			require.ErrorContains(t, err, tc.way)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOverridesWinOverTheFile(t *testing.T) {
	cfg, err := agent.Parse([]byte(header + "nodeName: of-the-file\nkubeconfig: /of/the/file"))
	require.NoError(t, err)
	cfg, err = cfg.With(agent.Overrides{NodeName: "of-the-flag", MetricsBindAddress: "0", StateDir: "/tmp/state"})
	require.NoError(t, err)
	require.Equal(t, "of-the-flag", cfg.NodeName)
	require.Equal(t, "/of/the/file", cfg.Kubeconfig)
	require.Equal(t, "0", cfg.Metrics.BindAddress)
	require.Equal(t, "/tmp/state", cfg.StateDir)

	_, err = cfg.With(agent.Overrides{NodeName: "Not A Name"})
	require.ErrorContains(t, err, "nodeName")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(header + "probes: [{name: a, type: http, url: 'http://x', period: 1s}]"))
	f.Add([]byte(header + "pull: {chunkSize: 1e3, minFree: 5%}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cfg, err := agent.Parse(raw)
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		_, err = agent.Probers(cfg, agent.NewCSINode(cfg))
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
		}
	})
}
