package agent_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/agent"
	"headstart.dev/agent/probe"
	"headstart.dev/readiness/v1alpha1"
)

func rule(name string, selector map[string]string, daemonSet string, handler corev1.ProbeHandler) v1alpha1.NodeReadinessRule {
	return v1alpha1.NodeReadinessRule{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.NodeReadinessRuleSpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: selector},
			RequiredDaemonSets: []v1alpha1.RequiredDaemonSet{
				{Namespace: "kube-system", Name: daemonSet, ReadinessProbe: &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 2}},
			},
		},
	}
}

func httpGet(host string, port intstr.IntOrString) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Port: port, Path: "ready"}}
}

func TestRuleProbersAreThoseOfTheRulesThatBindTheNode(t *testing.T) {
	cfg, err := agent.Parse([]byte(header + "probes: [{name: mine, type: file, path: /x}]"))
	require.NoError(t, err)
	pool := map[string]string{"pool": "fast"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: pool}}
	got := agent.RuleProbers(cfg, []v1alpha1.NodeReadinessRule{
		rule("a", pool, "aws-node", httpGet("", intstr.FromInt32(8080))),
		rule("b", pool, "aws-node", httpGet("", intstr.FromInt32(9090))),
		rule("c", map[string]string{"pool": "slow"}, "other", httpGet("", intstr.FromInt32(8080))),
		rule("d", pool, "mine", httpGet("", intstr.FromInt32(8080))),
	}, node)
	require.Len(t, got, 1, "one probe a condition, and the config's own stays")
	require.Equal(t, "headstart.dev/AwsNodeReady", got[0].Condition)
	at, ok := got[0].Checker.(*probe.At)
	require.True(t, ok)
	require.Equal(t, &probe.HTTP{URL: "http://127.0.0.1:8080/ready"}, at.Make("127.0.0.1:8080"))
	require.Equal(t, probe.Settings{Period: 2 * time.Second, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 3}, got[0].Settings)
}

func TestRuleProbersLookAtThisNodeOnly(t *testing.T) {
	pool := map[string]string{"pool": "fast"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: pool}}
	for name, handler := range map[string]corev1.ProbeHandler{
		"another host":            httpGet("169.254.169.254", intstr.FromInt32(80)),
		"another host by name":    httpGet("metadata.internal", intstr.FromInt32(80)),
		"a port that is none":     {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(0)}},
		"a command without words": {Exec: &corev1.ExecAction{}},
		"nothing":                 {},
		"what the controller answers": {Exec: &corev1.ExecAction{Command: []string{
			"kubectl", "wait", "--for=condition=Ready", "pod", "-l", "a=b", "-n", "x",
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, agent.RuleProbers(agent.Default(), []v1alpha1.NodeReadinessRule{rule("a", pool, "ds", handler)}, node))
		})
	}
	got := agent.RuleProbers(agent.Default(), []v1alpha1.NodeReadinessRule{
		rule("a", pool, "ds", corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/true"}}}),
	}, node)
	require.Len(t, got, 1)
	result := got[0].Once(t.Context())
	require.Equal(t, probe.False, result.Status)
	require.Contains(t, result.Message, "allowExec: true")
}

func TestPodProbersReportTheDaemonSetsThatRulesRequire(t *testing.T) {
	pool := map[string]string{"pool": "fast"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: pool}}
	requires := func(name string, labels map[string]string, required ...v1alpha1.RequiredDaemonSet) v1alpha1.NodeReadinessRule {
		return v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.NodeReadinessRuleSpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: labels}, RequiredDaemonSets: required,
		}}
	}
	cni := v1alpha1.RequiredDaemonSet{Namespace: "kube-system", Name: "aws-node"}
	csi := v1alpha1.RequiredDaemonSet{Namespace: "kube-system", Name: "ebs-csi-node", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "ebs"}}}
	all := v1alpha1.RequiredDaemonSet{Namespace: "kube-system", Name: "*"}
	got := agent.PodProbers(probe.NewPods("/nonexistent"), []v1alpha1.NodeReadinessRule{
		requires("a", pool, cni, csi), requires("b", pool, cni, all),
		requires("c", map[string]string{"pool": "slow"}, v1alpha1.RequiredDaemonSet{Namespace: "other", Name: "other"}),
	}, node)
	conditions := []string{}
	for _, p := range got {
		conditions = append(conditions, p.Condition)
		require.Equal(t, "KubeletAway", p.Once(t.Context()).Reason)
	}
	require.Len(t, conditions, 2, "one a DaemonSet; none for all of a namespace, which is for the controller to know")
	require.Equal(t, "headstart.dev/DaemonSetReady.kube-system.aws-node", conditions[0])
	require.Regexp(t, `^headstart\.dev/DaemonSetReady\.kube-system\.ebs-csi-node_[0-9a-f]{12}$`, conditions[1])
}
