package deploy_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const namespace = "headstart-test"

// ownImages are what nobody but the user can know.
var ownImages = []string{
	"controller.image.repository=registry.example/headstart-controller",
	"agent.image.repository=registry.example/headstart-agent", "agent.image.digest=sha256:" + strings.Repeat("ab", 32),
}

// valueSets is the matrix: each is a way in which people install the chart.
var valueSets = map[string][]string{
	"defaults":               nil,
	"controller only":        {"agent.enabled=false", "agent.image.repository=", "agent.image.digest="},
	"everything on":          {"agent.directPull=true", "agent.hostInstall=true", "metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true", "agent.config.metrics.bindAddress=:9464", "metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true", "resourceQuota.create=true", "crds.keep=false", "agent.scc=privileged"},
	"nothing optional":       {"rule.create=false", "gatePolicies.create=false", "warmPool.priorityClass.create=false", "controller.podDisruptionBudget=false", "controller.networkPolicy.enabled=false", "hooks.upgradeCRDs=false", "hooks.cleanUp=false"},
	"images by digest":       {"controller.image.digest=sha256:" + strings.Repeat("ab", 32)},
	"every form of rule":     {"controller.rules={native,guide,upstream}"},
	"features off":           {"controller.features.gates=false", "controller.features.prepull=false", "controller.features.warmPools=false", "controller.features.deleteNodeClaims=false"},
	"own taints and labels":  {"controller.nodeTaints={example.com/taint}", "controller.nodeLabels={example.com/label}", "controller.features.secretReferences=true"},
	"one replica, own paths": {"controller.replicas=1", "agent.hostPaths={/var/run/mine}", "agent.credentialProviderDir="},
	"metrics for some":       {"controller.networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b"},
	"labels, annotations and a proxy": {
		"commonLabels.team=a", "commonAnnotations.owner=a", "agent.podLabels.x=y", "controller.podAnnotations.x=y", "proxy.httpsProxy=http://p:3128", "proxy.noProxy=10.0.0.0/8",
		"imagePullSecrets[0].name=mine", "global.imagePullSecrets={theirs}", "global.imageRegistry=mirror.example", "controller.env[0].name=A", "controller.env[0].value=b", "agent.extraArgs={--log-level=debug}",
	},
	"profiles": {"agent.profiles[0].name=gpu", "agent.profiles[0].nodeSelector.accelerator=nvidia", "agent.profiles[0].config.probes[0].name=gpu", "agent.profiles[0].config.probes[0].type=gpu"},
}

func helmCommand(t *testing.T, command string, sets []string, more ...string) (string, string, error) {
	t.Helper()
	args := []string{command}
	if command == "template" {
		args = append(args, "headstart", "--namespace", namespace, "--include-crds=false")
	}
	args = append(args, chartDir, "--kube-version", "1.37.2")
	for _, set := range append(slices.Clone(ownImages), sets...) {
		args = append(args, "--set", set)
	}
	args = append(args, more...)
	if command == "lint" {
		args = append(args, "--strict")
	}
	return runHelm(t, args...)
}

func runHelm(t *testing.T, args ...string) (string, string, error) {
	t.Helper()
	return runHelmIn(t.Context(), args...)
}

func runHelmIn(ctx context.Context, args ...string) (string, string, error) {
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, helm, args...)
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
		"an image as root by its tag":            {"agent.image.tag=v1", "tag"},
		"the agent without a digest":             {"agent.image.digest=", "agent.image.digest is not set"},
		"no image of the agent":                  {"agent.image.repository=", "agent.image.repository is not set"},
		"no image of the controller":             {"controller.image.repository=", "controller.image.repository is not set"},
		"a folder that hides the pod's own":      {"agent.hostPaths={/etc}", "cannot be mounted"},
		"a profile of two labels":                {"agent.profiles[0].name=a,agent.profiles[0].nodeSelector.a=b,agent.profiles[0].nodeSelector.c=d", "nodeSelector"},
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
