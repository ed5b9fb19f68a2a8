package inspect_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/agent/timeline"
	"headstart.dev/gates"
	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
	"headstart.dev/internal/room"
	"headstart.dev/readiness"
	"headstart.dev/readiness/inspect"
	readinessv1alpha1 "headstart.dev/readiness/v1alpha1"
)

var (
	now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at  = inspect.View{Now: now}
)

func rule(t *testing.T) *readiness.Rule {
	t.Helper()
	r, err := readiness.FromNative(&readinessv1alpha1.NodeReadinessRule{
		ObjectMeta: metav1.ObjectMeta{Name: "headstart", UID: "r1", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Spec: readinessv1alpha1.NodeReadinessRuleSpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "web"}},
			Conditions:   []readinessv1alpha1.RequiredCondition{{Type: readiness.ConditionCNIReady, RequiredStatus: "True"}},
		},
	})
	require.NoError(t, err)
	return r
}

func node(name string, cni corev1.ConditionStatus, message string, taints ...corev1.Taint) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: "n-" + "1", Labels: map[string]string{"pool": "web"}, CreationTimestamp: metav1.NewTime(now.Add(-30 * time.Second)),
			Annotations: map[string]string{readiness.AnnotationImages: `{"snapshotter":"overlayfs","runtime":"containerd 2.2.4","engines":["direct","lazy"],"warm":["0123456789abcdef=a:1"]}`},
		},
		Spec: corev1.NodeSpec{Taints: taints},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: readiness.ConditionCNIReady, Status: cni, Reason: "Waiting", Message: message, LastTransitionTime: metav1.NewTime(now.Add(-20 * time.Second))},
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
		}},
	}
}

var held = corev1.Taint{Key: "readiness.k8s.io/headstart", Value: "pending", Effect: corev1.TaintEffectNoSchedule}

func TestStatus(t *testing.T) {
	foreign := corev1.Taint{Key: "example.com/mine", Effect: corev1.TaintEffectNoExecute}
	nodes := []corev1.Node{node("b", "True", "ok"), node("a", "False", "no conflist yet", held, foreign)}
	report := at.Nodes(nodes, []*readiness.Rule{rule(t)})
	require.Equal(t, []string{"a", "b"}, []string{report[0].Name, report[1].Name})
	require.Equal(t, readiness.StateHeld, report[0].State)
	require.Equal(t, readiness.StateReleased, report[1].State)
	require.Equal(t, []string{"example.com/mine:NoExecute"}, report[0].Taints)
	require.Len(t, report[0].Conditions, 1, "kubelet's own are not ours to tell")

	lines := statusLines(t, at, nodes, []*readiness.Rule{rule(t)}, true)
	require.Len(t, lines, 3)
	require.Regexp(t, `^a +Held +30s +False +- +- +- +- +1 +headstart: .*CNIReady`, lines[1])
	require.Regexp(t, `^b +Released +30s +True +- +- +- +- +1 +-$`, lines[2])

	var out strings.Builder
	require.NoError(t, inspect.WriteNode(&out, &report[0], now))
	for _, want := range []string{
		"rule headstart (native): Held", "on the node", "deadline  in 9m30s", "then Release", "example.com/mine:NoExecute belongs to no rule", "no conflist yet",
		"images    1 warm, pulled by direct, lazy into overlayfs of containerd 2.2.4",
	} {
		require.Contains(t, out.String(), want)
	}
}

func TestANodeCannotWriteToTheTerminal(t *testing.T) {
	hostile := node("a", "False", "\x1b[2Jgone\nrule headstart: Released"+strings.Repeat("x", 10_000))
	hostile.Annotations[readiness.AnnotationImages] = `{"snapshotter":"\u001b[2J","runtime":"` + strings.Repeat("y", 5000) + `","engines":["\nrule headstart: Released"` + strings.Repeat(`,"z"`, 500) + `]}`
	report := at.Nodes([]corev1.Node{hostile}, []*readiness.Rule{rule(t)})
	var out strings.Builder
	for _, wide := range []bool{true, false} {
		out.WriteString(strings.Join(statusLines(t, at, []corev1.Node{hostile}, []*readiness.Rule{rule(t)}, wide), "\n"))
	}
	require.NoError(t, inspect.WriteNode(&out, &report[0], now))
	require.NotContains(t, out.String(), "\x1b")
	require.NotContains(t, out.String(), "\nrule headstart: Released")
	require.Less(t, out.Len(), 3000)
}

func gatedPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "p", CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/config"}, {Name: "kueue.x-k8s.io/admission"}},
			Containers: []corev1.Container{{Name: "c", Image: "web:v1", EnvFrom: []corev1.EnvFromSource{{
				ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "flags"}},
			}}}},
		},
	}
}

func TestPod(t *testing.T) {
	policies := []gatesv1alpha1.GatePolicy{{
		ObjectMeta: metav1.ObjectMeta{Name: "config"}, Status: gatesv1alpha1.GatePolicyStatus{ObservedGeneration: 1},
		Spec: gatesv1alpha1.GatePolicySpec{
			GateName: "example.com/config", Requires: []gatesv1alpha1.Requirement{{References: &gatesv1alpha1.ReferencesRequirement{}}},
		},
	}}
	nodes := at.Nodes([]corev1.Node{node("a", "False", "", held)}, []*readiness.Rule{rule(t)})
	cases := map[string]struct {
		change func(*corev1.Pod)
		there  bool
		want   []string
		state  string
	}{
		"what is missing, and until when": {
			func(*corev1.Pod) {}, false,
			[]string{"policy config; its deadline does not run while others hold the pod", "ConfigMap shop/flags does not exist", "kueue.x-k8s.io/admission", "no GatePolicy names this gate", "1 node is held"},
			inspect.PodGated,
		},
		"nobody else holds it": {
			func(p *corev1.Pod) { p.Spec.SchedulingGates = p.Spec.SchedulingGates[:1] }, false,
			[]string{"policy config lifts it at the latest in 4m0s"},
			inspect.PodGated,
		},
		"all is there": {func(*corev1.Pod) {}, true, []string{"about to be lifted"}, inspect.PodGated},
		"on a node":    {func(p *corev1.Pod) { p.Spec.NodeName = "a" }, true, []string{"on node a"}, inspect.PodScheduled},
		"no gate is left": {
			func(p *corev1.Pod) {
				p.Spec.SchedulingGates = nil
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Message: "0/1 nodes are available"}}
			}, true, []string{"the scheduler says: 0/1 nodes", "why node/a"}, inspect.PodPending,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := gatedPod()
			tc.change(pod)
			facts := gates.Facts{Fleet: gates.NewFleet(), Exists: func(gates.Dependency) gates.Existence { return gates.There(tc.there) }}
			report, err := at.Pod(pod, policies, facts, nodes)
			require.NoError(t, err)
			require.Equal(t, tc.state, report.State)
			var out strings.Builder
			require.NoError(t, inspect.WritePod(&out, &report, now))
			for _, want := range tc.want {
				require.Contains(t, out.String(), want)
			}
		})
	}
}

func TestThePolicyInForceIsExplained(t *testing.T) {
	named := func(name string, age time.Duration, r gatesv1alpha1.Requirement) gatesv1alpha1.GatePolicy {
		return gatesv1alpha1.GatePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec:       gatesv1alpha1.GatePolicySpec{GateName: "example.com/config", Requires: []gatesv1alpha1.Requirement{r}},
		}
	}
	references := gatesv1alpha1.Requirement{References: &gatesv1alpha1.ReferencesRequirement{}}
	broken := gatesv1alpha1.Requirement{Object: &gatesv1alpha1.ObjectRequirement{APIVersion: "v1", Kind: "ConfigMap", Name: "x", Expression: "object +"}}
	holds := named("holds", time.Hour, references)
	holds.Status.ObservedGeneration = 1
	holds.Status.Conditions = []metav1.Condition{{Type: "Satisfiable", Status: metav1.ConditionFalse, Message: "the API server refused to lift the gate: no"}}
	policies := []gatesv1alpha1.GatePolicy{named("broken", 2*time.Hour, broken), named("late", time.Minute, references), holds}
	facts := gates.Facts{Fleet: gates.NewFleet(), Exists: func(gates.Dependency) gates.Existence { return gates.There(true) }}
	report, err := at.Pod(gatedPod(), policies, facts, nil)
	require.NoError(t, err)
	require.Equal(t, "holds", report.Gates[0].Policy)
	require.Equal(t, "policy holds: everything holds, but the API server refused to lift the gate: no", report.Gates[0].Describe(now))
}

func TestAPodIsToldWhichNodesAreWarm(t *testing.T) {
	policies := []gatesv1alpha1.GatePolicy{{
		ObjectMeta: metav1.ObjectMeta{Name: "images"},
		Spec: gatesv1alpha1.GatePolicySpec{
			GateName: "example.com/images", Requires: []gatesv1alpha1.Requirement{{Images: &gatesv1alpha1.ImagesRequirement{MinNodes: 2}}},
		},
	}}
	pod := gatedPod()
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/images"}}
	fleet := gates.NewFleet()
	for _, name := range []string{"roomy", "full", "tainted", "cold"} {
		n := node(name, "True", "")
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}
		n.Annotations[readiness.AnnotationImages] = `{"warm":["0123456789abcdef=docker.io/library/web:v1"]}`
		switch name {
		case "cold":
			n.Annotations[readiness.AnnotationImages] = "{}"
		case "tainted":
			n.Spec.Taints = []corev1.Taint{held}
		}
		fleet.SetNode(gates.ReadNode(&n))
	}
	fleet.Bind("other", "full", room.Pod{Requests: resources.List{corev1.ResourcePods: 1}})
	report, err := at.Pod(pod, policies, gates.Facts{Fleet: fleet}, nil)
	require.NoError(t, err)
	require.Equal(t, []gates.WarmNode{{Name: "full", Full: true}, {Name: "roomy"}}, report.Warm.Nodes)
	report.Pulling = []string{"cold"}
	var out strings.Builder
	require.NoError(t, inspect.WritePod(&out, &report, now))
	for _, want := range []string{
		"since 1m0s ago", "want 2", "then it is steered to a warm node with room", "could run: full (full), roomy",
		"image docker.io/library/web:v1 is warm on 3 nodes: full, roomy, tainted", "agents are asked to fetch them on: cold",
	} {
		require.Contains(t, out.String(), want)
	}
}

func TestAPodThatToleratesTheTaintDoesNotWaitForIt(t *testing.T) {
	nodes := at.Nodes([]corev1.Node{node("a", "False", "", held)}, []*readiness.Rule{rule(t)})
	pod := gatedPod()
	pod.Spec.Tolerations = []corev1.Toleration{{Key: held.Key, Operator: corev1.TolerationOpExists}}
	report, err := at.Pod(pod, nil, gates.Facts{Fleet: gates.NewFleet()}, nodes)
	require.NoError(t, err)
	require.Empty(t, report.HeldNodes)
}

func TestTimelineHasTheReleaseAndThePods(t *testing.T) {
	boot := timeline.Timeline{}
	boot.Add(timeline.Phase{Name: timeline.Kernel, Start: now, End: now.Add(5 * time.Second)})
	n := node("a", "True", "")
	n.Annotations[readiness.AnnotationReadiness] = `{"node":"n-1","rules":{"r1":{"name":"headstart","state":"done","at":1795435208}}}`
	inspect.AddReleases(&boot, &n)
	started := gatedPod()
	started.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: "True", LastTransitionTime: metav1.NewTime(now.Add(9 * time.Second))},
		{Type: corev1.PodReady, Status: "True", LastTransitionTime: metav1.NewTime(now.Add(11 * time.Second))},
	}
	later := started.DeepCopy()
	later.Name = "later"
	later.Status.Conditions = later.Status.Conditions[:1]
	later.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(time.Hour))
	require.Equal(t, 1, inspect.AddPods(&boot, []corev1.Pod{*started, *later}, inspect.Window(&boot)))
	require.Len(t, boot.Phases, 3, "a pod of an hour later is not this boot's")
	require.Equal(t, inspect.Released, boot.Phases[1].Name)
	require.Equal(t, "shop/web", boot.Phases[2].Detail)
}
