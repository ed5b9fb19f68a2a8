package deploy_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const namespace = "headstart-test"

// valueSets is the matrix: each is a way in which people install the chart.
var valueSets = map[string][]string{
	"defaults":               nil,
	"controller only":        {"agent.enabled=false"},
	"everything on":          {"agent.directPull=true", "agent.hostInstall=true", "metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true", "agent.config.metrics.bindAddress=:9464", "metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true"},
	"nothing optional":       {"rule.create=false", "gatePolicies.create=false", "warmPool.priorityClass.create=false", "controller.podDisruptionBudget=false", "controller.networkPolicy.enabled=false", "hooks.upgradeCRDs=false", "hooks.cleanUp=false"},
	"all probes":             {"agent.config.probes[0].name=cni", "agent.config.probes[0].type=cni", "agent.config.probes[1].name=csi", "agent.config.probes[1].type=csi", "agent.config.probes[1].drivers={ebs.csi.aws.com}", "agent.config.probes[2].name=gpu", "agent.config.probes[2].type=gpu", "agent.config.probes[3].name=unit", "agent.config.probes[3].type=systemd", "agent.config.probes[3].unit=x.service"},
	"images by digest":       {"controller.image.digest=sha256:" + strings.Repeat("ab", 32), "agent.image.digest=sha256:" + strings.Repeat("ab", 32)},
	"every form of rule":     {"controller.rules={native,guide,upstream}"},
	"one replica, own paths": {"controller.replicas=1", "agent.hostPaths={/var/run/mine}", "agent.credentialProviderDir="},
	"metrics for some":       {"controller.networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b"},
}

func helmCommand(t *testing.T, command string, sets []string) (string, string, error) {
	t.Helper()
	args := []string{command}
	if command == "template" {
		args = append(args, "headstart", "--namespace", namespace, "--include-crds=false")
	}
	args = append(args, chartDir, "--kube-version", "1.37.2")
	for _, set := range sets {
		args = append(args, "--set", set)
	}
	if command == "lint" {
		args = append(args, "--strict")
	}
	var out, errs strings.Builder
	cmd := exec.CommandContext(t.Context(), helm, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	return out.String(), errs.String(), err
}

func template(t *testing.T, sets ...string) []*unstructured.Unstructured {
	t.Helper()
	out, errs, err := helmCommand(t, "template", sets)
	require.NoError(t, err, errs)
	return decode(t, []byte(out))
}

func TestChartLints(t *testing.T) {
	for name, sets := range valueSets {
		t.Run(name, func(t *testing.T) {
			out, errs, err := helmCommand(t, "lint", sets)
			require.NoError(t, err, out+errs)
		})
	}
}

func TestChartIsAcceptedByTheAPIServer(t *testing.T) {
	a := newAPI(t)
	a.namespace(t, namespace)
	for name, sets := range valueSets {
		t.Run(name, func(t *testing.T) {
			objects := template(t, sets...)
			require.NotEmpty(t, objects)
			seen := map[string]bool{}
			for _, obj := range objects {
				key := obj.GetKind() + "/" + obj.GetName()
				require.False(t, seen[key], "%s stands twice", key)
				seen[key] = true
				if obj.GetKind() == "CustomResourceDefinition" {
					continue // the control plane has them already
				}
				a.dryRun(t, obj)
			}
		})
	}
}

func TestChartSchemaRefuses(t *testing.T) {
	cases := map[string]struct{ set, want string }{
		"an unknown field":                       {"agent.imagee=x", "imagee"},
		"an unknown field of the agent's config": {"agent.config.probe=x", "probe"},
		"a probe of no known type":               {"agent.config.probes[0].type=dns", "type"},
		"no replica":                             {"controller.replicas=0", "replicas"},
		"a form of rule that nobody knows":       {"controller.rules={kyverno}", "rules"},
		"a digest that is none":                  {"agent.image.digest=latest", "digest"},
		"a priority that empties nodes":          {"warmPool.priorityClass.value=-33554432", "value"},
		"a duration without unit":                {"rule.readinessTimeout=60", "readinessTimeout"},
		"an action that nobody knows":            {"rule.onTimeout=Pray", "onTimeout"},
		"metrics that nobody reaches":            {"metrics.podMonitor.enabled=true", "agent.config.metrics.bindAddress"},
		"a selector of every node":               {"rule.nodeSelector=null", "nodeSelector"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, errs, err := helmCommand(t, "template", []string{tc.set})
			require.Error(t, err)
			require.Contains(t, errs, tc.want)
		})
	}
}

func rules(t *testing.T, obj *unstructured.Unstructured) []map[string]any {
	t.Helper()
	list, _, err := unstructured.NestedSlice(obj.Object, "rules")
	require.NoError(t, err)
	var out []map[string]any
	for _, item := range list {
		rule, ok := item.(map[string]any)
		require.True(t, ok)
		out = append(out, rule)
	}
	return out
}

func TestRolesHaveNoWildcards(t *testing.T) {
	n := 0
	for _, obj := range template(t, valueSets["everything on"]...) {
		if obj.GetKind() != "ClusterRole" && obj.GetKind() != "Role" {
			continue
		}
		for _, rule := range rules(t, obj) {
			n++
			for _, field := range []string{"apiGroups", "resources", "verbs", "nonResourceURLs"} {
				values, _, err := unstructured.NestedStringSlice(rule, field)
				require.NoError(t, err)
				for _, v := range values {
					require.NotContains(t, v, "*", "%s %s: %s", obj.GetKind(), obj.GetName(), field)
				}
			}
		}
	}
	require.Positive(t, n, "the chart has roles")
}

func podSpec(t *testing.T, objects []*unstructured.Unstructured, kind string) map[string]any {
	t.Helper()
	for _, obj := range objects {
		if obj.GetKind() == kind {
			spec, ok, err := unstructured.NestedMap(obj.Object, "spec", "template", "spec")
			require.NoError(t, err)
			require.True(t, ok)
			return spec
		}
	}
	require.Fail(t, "no "+kind)
	return nil
}

func volumes(t *testing.T, spec map[string]any) []string {
	t.Helper()
	list, _, err := unstructured.NestedSlice(spec, "volumes")
	require.NoError(t, err)
	var out []string
	for _, item := range list {
		volume, ok := item.(map[string]any)
		require.True(t, ok)
		if path, ok, _ := unstructured.NestedString(volume, "hostPath", "path"); ok {
			out = append(out, path)
		}
	}
	return out
}

func TestAgentHasThePrivilegesOfItsProbesOnly(t *testing.T) {
	base := []string{"/run/headstart", "/run/containerd", "/etc/containerd", "/etc/eks/image-credential-provider", "/var/lib/kubelet/pods-api"}
	cni := []string{"/etc/cni/net.d", "/var/run/aws-node"}
	cases := map[string]struct {
		sets         []string
		want         []string
		capabilities bool
	}{
		"the CNI alone": {nil, append(base, cni...), false},
		"CSI adds its sockets": {
			[]string{"agent.config.probes[1].name=csi", "agent.config.probes[1].type=csi", "agent.config.probes[0].name=cni", "agent.config.probes[0].type=cni"},
			append(append(base, cni...), "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry"), false,
		},
		"HTTP alone needs nothing of the host": {[]string{"agent.config.probes[0].name=x", "agent.config.probes[0].type=http"}, base, false},
		"direct pulls add containerd's root":   {[]string{"agent.directPull=true"}, append(append(base, cni...), "/var/lib/containerd"), true},
		"install adds the host's root":         {[]string{"agent.hostInstall=true"}, append(append(base, cni...), "/"), false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			spec := podSpec(t, template(t, tc.sets...), "DaemonSet")
			require.ElementsMatch(t, tc.want, volumes(t, spec))
			containers, _, err := unstructured.NestedSlice(spec, "containers")
			require.NoError(t, err)
			container, ok := containers[0].(map[string]any)
			require.True(t, ok)
			_, added, err := unstructured.NestedStringSlice(container, "securityContext", "capabilities", "add")
			require.NoError(t, err)
			require.Equal(t, tc.capabilities, added)
			_, privileged, _ := unstructured.NestedBool(container, "securityContext", "privileged")
			require.False(t, privileged)
		})
	}
}
