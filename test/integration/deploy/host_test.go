package deploy_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"headstart.dev/agent"
)

// probeConfigs are configs of all families; a family that is missing here fails the test.
var probeConfigs = map[string]string{
	"every family": `
probes:
- {name: cni, type: cni}
- {name: csi, type: csi, drivers: [ebs.csi.aws.com]}
- {name: gpu, type: gpu}
- {name: efa, type: efa}
- {name: neuron, type: neuron}
- {name: dra, type: dra, drivers: [gpu.nvidia.com]}
- {name: a, type: systemd, unit: a.service}
- {name: b, type: http, url: "http://127.0.0.1:1/", initialDelay: 1s, period: 250ms, failureThreshold: 5}
- {name: c, type: tcp, address: "127.0.0.1:1"}
- {name: d, type: grpc, address: "unix:///run/d/d.sock", service: x}
- {name: e, type: unix, path: /run/e/e.sock}
- {name: f, type: file, path: /opt/f/ready}
- {name: g, type: exec, command: [/opt/g/check, --fast], allowExec: true}
`,
	"another root of the kubelet": "kubeletDir: /var/snap/microk8s/common/var/lib/kubelet\nprobes: [{name: csi, type: csi, drivers: [a]}, {name: gpu, type: gpu, devicePlugin: false}]",
	"a probe's own root":          "probes: [{name: csi, type: csi, drivers: [a], kubeletDir: /data/kubelet}]",
	"k3s":                         "containerd: {address: unix:///run/k3s/containerd/containerd.sock}\nprobes: [{name: cni, type: cni, confDir: /var/lib/rancher/k3s/agent/etc/cni/net.d, plugin: generic}]",
	"a plugin's socket elsewhere": "probes: [{name: cni, type: cni, plugin: cilium, address: 'unix:///run/mine/cilium.sock'}]",
	"a plugin at a URL":           "probes: [{name: cni, type: cni, address: 'http://127.0.0.1:1/healthz'}]",
	"a kernel setting":            "probes: [{name: a, type: file, path: /proc/sys/net/ipv4/ip_forward}]",
	"registration":                "register: {taints: [{key: a/b, effect: NoSchedule}], labels: {a: b}}",
	"registration elsewhere":      "register: {taints: [{key: a/b, effect: NoSchedule}], labels: {a: b}, kubeletConfigDir: /etc/k/conf.d, kubeletArgsFile: /etc/k2/env}",
	"credentials":                 "registry: {credentialProviderConfig: /etc/provider/config.json, credentialProviderBinDir: /opt/provider/bin}",
	"state elsewhere":             "stateDir: /run/elsewhere\npull: {minFree: 5%, chunkSize: 16Mi}\nimages: [{image: nginx, priority: 1, required: true, mode: Lazy}]",
}

func templateConfig(t *testing.T, config string) ([]*unstructured.Unstructured, string, error) {
	t.Helper()
	fields := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(config), &fields))
	if fields["probes"] == nil {
		fields["probes"] = []any{}
	}
	text, err := yaml.Marshal(map[string]any{"agent": map[string]any{"config": fields}})
	require.NoError(t, err)
	// Helm splits the paths of values files at commas, and a test's own folder has its name.
	values, err := os.CreateTemp("", "values-*.yaml") //nolint:usetesting // as above
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(values.Name())) })
	_, err = values.Write(text)
	require.NoError(t, errors.Join(err, values.Close()))
	out, errs, err := helmCommand(t, "template", nil, "-f", values.Name())
	if err != nil {
		return nil, errs, err
	}
	return decode(t, []byte(out)), "", nil
}

func daemonSets(t *testing.T, objects []*unstructured.Unstructured) []appsv1.DaemonSet {
	t.Helper()
	var out []appsv1.DaemonSet
	for _, obj := range objects {
		if obj.GetKind() == "DaemonSet" {
			var ds appsv1.DaemonSet
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(obj.Object, &ds, true))
			out = append(out, ds)
		}
	}
	return out
}

// TestTheAgentsPodHasWhatItsConfigNeeds holds the chart's mounts and rights to what the agent says that it needs.
func TestTheAgentsPodHasWhatItsConfigNeeds(t *testing.T) {
	families := map[agent.ProbeType]bool{}
	for name, config := range probeConfigs {
		t.Run(name, func(t *testing.T) {
			cfg, err := agent.Parse([]byte("apiVersion: agent.headstart.dev/v1alpha1\nkind: AgentConfig\n" + config))
			require.NoError(t, err)
			for _, p := range cfg.Probes {
				families[p.Type] = true
			}
			want, err := agent.HostPaths(cfg)
			require.NoError(t, err)
			objects, errs, err := templateConfig(t, config)
			require.NoError(t, err, errs)
			spec := daemonSets(t, objects)[0].Spec.Template.Spec
			got := mounts(t, spec)
			for _, path := range []string{"/etc/containerd", "/etc/eks/image-credential-provider"} { // the chart's own values
				require.Contains(t, got, agent.HostPath{Path: path})
				got = slices.DeleteFunc(got, func(p agent.HostPath) bool { return p.Path == path })
			}
			require.ElementsMatch(t, want, got)
			security := spec.Containers[0].SecurityContext
			require.Equal(t, []corev1.Capability{"ALL"}, security.Capabilities.Drop)
			var added []string
			for _, capability := range security.Capabilities.Add {
				added = append(added, string(capability))
			}
			require.ElementsMatch(t, agent.Capabilities(cfg), added)
			require.Nil(t, security.Privileged)
		})
	}
	for family := range agent.FieldsOfProbes() {
		require.True(t, families[family], "no config has a probe of type %s", family)
	}
}

// mounts are the folders of the host, each under its own path.
func mounts(t *testing.T, spec corev1.PodSpec) []agent.HostPath {
	t.Helper()
	at := map[string]corev1.VolumeMount{}
	for _, mount := range spec.Containers[0].VolumeMounts {
		at[mount.Name] = mount
	}
	var out []agent.HostPath
	for _, volume := range spec.Volumes {
		if volume.HostPath != nil {
			require.Equal(t, volume.HostPath.Path, at[volume.Name].MountPath)
			out = append(out, agent.HostPath{Path: volume.HostPath.Path, Writable: !at[volume.Name].ReadOnly})
		}
	}
	return out
}

// TestHelmRefusesWhatTheAgentRefuses has the mistakes that would crash every agent found before anything is installed.
func TestHelmRefusesWhatTheAgentRefuses(t *testing.T) {
	for _, config := range []string{
		"probes: [{name: a, type: http, url: 'http://a', failureTreshold: 3}]",
		"probes: [{name: a, type: tcp, address: 'a:1', url: 'http://a'}]",
		"probes: [{name: a, type: file}]",
		"probes: [{name: csi, type: csi, driver: a}]",
		"probes: [{name: cni, type: file, path: /a/b}]",
		"probes: [{name: images, type: file, path: /a/b}]",
		"probes: [{name: a-b, type: file, path: /a/b}, {name: a--b, type: file, path: /a/c}]",
		"probes: [{name: a, type: file, path: /a/b, period: 5}]",
		"pull: {minfree: 5%}",
		"registry: {mirrors: []}",
		"register: {taint: []}",
		"images: [{image: nginx, require: true}]",
	} {
		t.Run(config, func(t *testing.T) {
			_, err := agent.Parse([]byte("apiVersion: agent.headstart.dev/v1alpha1\nkind: AgentConfig\n" + config))
			require.Error(t, err, "the agent")
			_, errs, err := templateConfig(t, config)
			require.Error(t, err, "Helm")
			require.Contains(t, errs, "agent", "it says where")
		})
	}
}

func TestProfilesShareNoNode(t *testing.T) {
	sets := append(slices.Clone(valueSets["profiles"]), "agent.profiles[1].name=efa", "agent.profiles[1].nodeSelector.net=efa", "agent.profiles[1].config.probes[0].name=efa", "agent.profiles[1].config.probes[0].type=efa")
	found := map[string]appsv1.DaemonSet{}
	for _, ds := range daemonSets(t, template(t, sets...)) {
		found[ds.Name] = ds
	}
	require.Len(t, found, 3)
	excluded := func(name string) string {
		spec := found[name].Spec.Template.Spec
		return fmt.Sprint(spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms)
	}
	require.Equal(t, "nvidia", found["headstart-agent-gpu"].Spec.Template.Spec.NodeSelector["accelerator"])
	require.NotContains(t, excluded("headstart-agent-gpu"), "accelerator")
	require.Contains(t, excluded("headstart-agent-efa"), "{accelerator NotIn [nvidia]}", "the first that matches has the node")
	for _, label := range []string{"{accelerator NotIn [nvidia]}", "{net NotIn [efa]}", "{eks.amazonaws.com/compute-type NotIn [fargate]}"} {
		require.Contains(t, excluded("headstart-agent"), label)
	}
	require.Contains(t, mounts(t, found["headstart-agent-efa"].Spec.Template.Spec), agent.HostPath{Path: "/dev/infiniband"})
	require.NotContains(t, mounts(t, found["headstart-agent"].Spec.Template.Spec), agent.HostPath{Path: "/dev/infiniband"})
}
