package readiness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// agentRule requires the DaemonSet kube-system/agent as FromNative makes it.
func agentRule(t *testing.T, change ...func(*v1alpha1.NodeReadinessRuleSpec)) *readiness.Rule {
	t.Helper()
	in := &v1alpha1.NodeReadinessRule{
		ObjectMeta: metav1.ObjectMeta{Name: "r", UID: ruleUID, CreationTimestamp: metav1.NewTime(born)},
		Spec: v1alpha1.NodeReadinessRuleSpec{
			NodeSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "a"}},
			RequiredDaemonSets: []v1alpha1.RequiredDaemonSet{{Namespace: "kube-system", Name: "agent"}},
		},
	}
	for _, c := range change {
		c(&in.Spec)
	}
	rule, err := readiness.FromNative(in)
	require.NoError(t, err)
	return rule
}

const agentReport = "headstart.dev/DaemonSetReady.kube-system.agent"

func TestTheAgentsReportOfAPod(t *testing.T) {
	seen := born.Add(90 * time.Second)
	pod := func(change ...func(*readiness.Pod)) func(*readiness.Facts) {
		p := readiness.Pod{Namespace: "kube-system", Name: "agent-x", DaemonSet: "agent", Changed: seen}
		for _, c := range change {
			c(&p)
		}
		return func(f *readiness.Facts) { f.Pods = append(f.Pods, p) }
	}
	report := func(conditionType corev1.NodeConditionType, status corev1.ConditionStatus, at time.Time) func(*readiness.Facts) {
		return func(f *readiness.Facts) {
			f.Node.Status.Conditions = append(f.Node.Status.Conditions, corev1.NodeCondition{
				Type: conditionType, Status: status, LastHeartbeatTime: metav1.NewTime(at), LastTransitionTime: metav1.NewTime(at),
			})
		}
	}
	for name, tc := range map[string]struct {
		facts []func(*readiness.Facts)
		want  readiness.State
	}{
		"nobody says anything":                               {nil, readiness.StateHeld},
		"the API server knows of a pod that is Ready":        {[]func(*readiness.Facts){pod(func(p *readiness.Pod) { p.Ready = true })}, readiness.StateReleased},
		"the API server knows of one that is not":            {[]func(*readiness.Facts){pod()}, readiness.StateHeld},
		"the agent knew first":                               {[]func(*readiness.Facts){pod(), report(agentReport, corev1.ConditionTrue, seen.Add(time.Second))}, readiness.StateReleased},
		"the agent, in the same second":                      {[]func(*readiness.Facts){pod(), report(agentReport, corev1.ConditionTrue, seen)}, readiness.StateReleased},
		"the agent has not said anything since":              {[]func(*readiness.Facts){pod(), report(agentReport, corev1.ConditionTrue, seen.Add(-time.Second))}, readiness.StateHeld},
		"the agent says that it is not":                      {[]func(*readiness.Facts){pod(), report(agentReport, corev1.ConditionFalse, seen.Add(time.Second))}, readiness.StateHeld},
		"the agent does not know, the API server does":       {[]func(*readiness.Facts){pod(func(p *readiness.Pod) { p.Ready = true }), report(agentReport, corev1.ConditionUnknown, seen.Add(time.Second))}, readiness.StateReleased},
		"the agent's report of a pod that is gone":           {[]func(*readiness.Facts){report(agentReport, corev1.ConditionTrue, seen)}, readiness.StateHeld},
		"of a pod that ends":                                 {[]func(*readiness.Facts){pod(func(p *readiness.Pod) { p.Terminating = true }), report(agentReport, corev1.ConditionTrue, seen)}, readiness.StateHeld},
		"of a DaemonSet of that name in another namespace":   {[]func(*readiness.Facts){pod(), report("headstart.dev/DaemonSetReady.default.agent", corev1.ConditionTrue, seen)}, readiness.StateHeld},
		"of a DaemonSet that was found by another selector":  {[]func(*readiness.Facts){pod(), report(agentReport+"_0123456789ab", corev1.ConditionTrue, seen)}, readiness.StateHeld},
		"the readinessProbe of that DaemonSet says nothing":  {[]func(*readiness.Facts){pod(), report("headstart.dev/AgentReady", corev1.ConditionTrue, seen)}, readiness.StateHeld},
		"a node that claims something without any pod of it": {[]func(*readiness.Facts){report(agentReport, corev1.ConditionTrue, seen.Add(24*time.Hour))}, readiness.StateHeld},
	} {
		t.Run(name, func(t *testing.T) {
			d := readiness.Evaluate(agentRule(t), makeFacts(tc.facts...), born.Add(2*time.Minute))
			require.Equal(t, tc.want, d.State, d.Reasons)
		})
	}
}

func TestTheAgentsReportOfAnEarlierBootDoesNotCountAfterAReboot(t *testing.T) {
	rule := agentRule(t, func(s *v1alpha1.NodeReadinessRuleSpec) { s.RearmOnReboot = true })
	boot := func(id string) func(*readiness.Facts) {
		return func(f *readiness.Facts) {
			f.Node.Annotations = map[string]string{"headstart.dev/timeline": `{"bootID":"` + id + `"}`}
			f.Node.Status.Conditions = []corev1.NodeCondition{{Type: agentReport, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(born.Add(time.Hour))}}
			f.Pods = []readiness.Pod{{Namespace: "kube-system", Name: "agent-x", DaemonSet: "agent"}}
		}
	}
	done := entry(readiness.Entry{State: readiness.EntryDone, Boot: "boot-0"})
	require.Equal(t, readiness.StateHeld, readiness.Evaluate(rule, makeFacts(done, boot("boot-0")), born.Add(2*time.Hour)).State)
	require.Equal(t, readiness.StateReleased, readiness.Evaluate(rule, makeFacts(done, boot("boot-1")), born.Add(2*time.Hour)).State)
}

func TestReportsAreToldApart(t *testing.T) {
	selector := func(value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": value}}
	}
	rule := agentRule(t, func(s *v1alpha1.NodeReadinessRuleSpec) {
		s.RequiredDaemonSets = []v1alpha1.RequiredDaemonSet{
			{Namespace: "a", Name: "b"},
			{Namespace: "a", Name: "b", Selector: selector("x")},
			{Namespace: "a", Name: "b", Selector: selector("y")},
			{Namespace: "a", Selector: selector("x")},
			{Namespace: "a", Name: "b.c"},
			{Namespace: "a-b", Name: "c"},
			{Namespace: "a", Name: "*"},
		}
		s.OptionalDaemonSets = []v1alpha1.OptionalDaemonSet{{Namespace: "a", Name: "b"}}
	})
	reports := map[corev1.NodeConditionType]bool{}
	for _, ds := range rule.DaemonSets {
		reports[ds.Report] = true
	}
	require.Len(t, reports, len(rule.DaemonSets))
	require.Empty(t, rule.DaemonSets[6].Report, "an agent does not know which DaemonSets have no pod yet")
	require.Empty(t, rule.Optional[0].Report, "a label that attracts pods is not for the node to earn by its word")
}

func TestWhyTellsOfTheAgentsReport(t *testing.T) {
	rules := []*readiness.Rule{agentRule(t)}
	node := makeFacts(taintedFact).Node
	explain := func() []readiness.Reason { return readiness.Explain(node, rules, born.Add(2*time.Minute))[0].Reasons }
	require.Equal(t, readiness.ReasonDaemonSetUnknown, explain()[0].Code)
	node.Status.Conditions = []corev1.NodeCondition{{Type: agentReport, Status: corev1.ConditionFalse, Message: "pod kube-system/agent-x is not Ready"}}
	require.Contains(t, explain()[0].Message, "agent-x is not Ready")
	node.Status.Conditions[0].Status = corev1.ConditionTrue
	require.Empty(t, explain())
}
