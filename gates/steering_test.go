package gates

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates/v1alpha1"
)

func in(key string, values ...string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
}

func term(requirements ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: requirements}
}

func TestRequireLabelOnlyTightens(t *testing.T) {
	label := WarmLabel([]string{app})
	field := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{in(metaNameField, "n1")}}
	cases := map[string]struct{ terms, want []corev1.NodeSelectorTerm }{
		"a pod without affinity": {nil, []corev1.NodeSelectorTerm{term(in(label, "true"))}},
		"each of several terms": {
			[]corev1.NodeSelectorTerm{term(in("zone", "a")), term(in("zone", "b"))},
			[]corev1.NodeSelectorTerm{term(in("zone", "a"), in(label, "true")), term(in("zone", "b"), in(label, "true"))},
		},
		"a term by field": {
			[]corev1.NodeSelectorTerm{field},
			[]corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{in(label, "true")}, MatchFields: field.MatchFields}},
		},
		"a term that matches nothing goes on matching nothing": {[]corev1.NodeSelectorTerm{{}}, []corev1.NodeSelectorTerm{{}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, RequireLabel(tc.terms, label)) })
	}
}

func TestASteeredPodIsKnownAndCouldRunWhereItCouldBefore(t *testing.T) {
	shapes, label := NewShapes(), WarmLabel([]string{app})
	steered := makePod(t, shapes, "p", "1", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: RequireLabel(nil, label)},
		}}
	})
	require.True(t, steered.Steered)
	require.Empty(t, steered.Required)
	fleet := NewFleet()
	fleet.SetNode(ReadNode(makeNode(t, "n1", "4", app)))
	require.True(t, fleet.HasRoom(steered.Shape), "whatever the labels are now: they are ours to set")
	require.False(t, makePod(t, shapes, "q", "1").Steered)
}

func nodeNames(nodes []*Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name())
	}
	return out
}

func TestLabelTargets(t *testing.T) {
	fleet, shapes := NewFleet(), NewShapes()
	pod := makePod(t, shapes, "p", "1")
	for i := range 4 {
		fleet.SetNode(ReadNode(makeNode(t, fmt.Sprintf("n%d", i), "2", app)))
	}
	fleet.SetNode(ReadNode(makeNode(t, "cold", "8")))
	all := []string{"n0", "n1", "n2", "n3"}
	require.Equal(t, all, nodeNames(fleet.LabelTargets(pod.Shape)), "every warm node: what pods do to each other there is the scheduler's business")
	labelled := makeNode(t, "n3", "2", app)
	labelled.Labels[pod.WarmLabel()] = "true"
	require.Contains(t, fleet.SetNode(ReadNode(labelled)), Dependency{Kind: KindWarmLabel, Name: pod.WarmLabel()})
	require.Equal(t, all, nodeNames(fleet.LabelTargets(pod.Shape)))
	require.Equal(t, []string{"n3"}, nodeNames(fleet.Labelled()[pod.WarmLabel()]))

	_, ok := fleet.ReserveLabelled(makePod(t, shapes, "a", "2"), start())
	require.True(t, ok)
	_, ok = fleet.ReserveLabelled(makePod(t, shapes, "b", "2"), start())
	require.False(t, ok, "the one node with the label is full")
	colder := labelled.DeepCopy()
	colder.Annotations = nil
	fleet.SetNode(ReadNode(colder))
	require.Equal(t, []string{"n0", "n1", "n2"}, nodeNames(fleet.LabelTargets(pod.Shape)), "a node that is no longer warm loses it")
}

func TestPodsThatKeepApartWaitForEveryLabel(t *testing.T) {
	spread := func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{TopologyKey: corev1.LabelHostname, MaxSkew: 1}}
	}
	fleet, shapes := NewFleet(), NewShapes()
	alone, apart := makePod(t, shapes, "alone", "1"), makePod(t, shapes, "apart", "1", spread)
	for _, name := range []string{"n0", "n1"} {
		fleet.SetNode(ReadNode(makeNode(t, name, "2", app)))
	}
	label := func(name string) {
		object := makeNode(t, name, "2", app)
		object.Labels[alone.WarmLabel()] = "true"
		fleet.SetNode(ReadNode(object))
	}
	waits := func(p *Pod) bool { return len(steeringRequirement{}.unmet(p, Facts{Fleet: fleet})) > 0 }
	label("n0")
	require.False(t, waits(alone))
	require.True(t, waits(apart), "with one node to choose from the scheduler could not keep them apart")
	label("n1")
	require.False(t, waits(apart))
}

func TestRequiredWaitsForTheLabel(t *testing.T) {
	policy := func(overflow v1alpha1.Overflow) *Policy {
		compiled, err := Compile(&v1alpha1.GatePolicy{Spec: v1alpha1.GatePolicySpec{
			Placement: v1alpha1.PlacementRequired, Overflow: overflow,
			Requires: []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{}}},
		}})
		require.NoError(t, err)
		return compiled
	}
	fleet, pod := NewFleet(), makePod(t, NewShapes(), "p", "1")
	object := makeNode(t, "n1", "1", app)
	fleet.SetNode(ReadNode(object))
	verdict := policy(v1alpha1.OverflowWait).Evaluate(pod, Facts{Fleet: fleet}, Clock{Now: start(), Since: start()})
	require.Equal(t, Wait, verdict.Outcome)
	require.Equal(t, "label "+pod.WarmLabel()+" is about to be set on a warm node", Describe(verdict.Unmet))
	require.Contains(t, policy(v1alpha1.OverflowWait).Dependencies(pod), Dependency{Kind: KindWarmLabel, Name: pod.WarmLabel()})

	object.Labels[pod.WarmLabel()] = "true"
	fleet.SetNode(ReadNode(object))
	require.Equal(t, Lift, policy(v1alpha1.OverflowWait).Evaluate(pod, Facts{Fleet: fleet}, Clock{Now: start(), Since: start()}).Outcome)
	fleet.Bind("other", "n1", pod.Takes())
	require.Equal(t, Wait, policy(v1alpha1.OverflowWait).Evaluate(pod, Facts{Fleet: fleet}, Clock{Now: start(), Since: start()}).Outcome, "full warm nodes: wait")
	require.Equal(t, Lift, policy(v1alpha1.OverflowRelease).Evaluate(pod, Facts{Fleet: fleet}, Clock{Now: start(), Since: start()}).Outcome, "or go, as the policy says")
}

func TestAGangUnderRequiredTakesLabelledNodesOnly(t *testing.T) {
	compiled, err := Compile(&v1alpha1.GatePolicy{Spec: v1alpha1.GatePolicySpec{
		Placement: v1alpha1.PlacementRequired, Requires: []v1alpha1.Requirement{
			{Images: &v1alpha1.ImagesRequirement{}}, {Gang: &v1alpha1.GangRequirement{Label: "job", Size: 2}},
		},
	}})
	require.NoError(t, err)
	shapes, fleet := NewShapes(), NewFleet()
	member := func(name string) *Pod {
		return makePod(t, shapes, name, "1", func(p *corev1.Pod) { p.Labels = map[string]string{"job": "x"} })
	}
	pods := []*Pod{member("a"), member("b")}
	labelled := makeNode(t, "n1", "1", app)
	labelled.Labels[pods[0].WarmLabel()] = "true"
	fleet.SetNode(ReadNode(labelled))
	fleet.SetNode(ReadNode(makeNode(t, "n2", "4", app)))
	fleet.SetNode(ReadNode(makeNode(t, "cold", "4")))
	name, _ := compiled.Gang(pods[0])
	judge := func() []Unmet { return compiled.EvaluateGang(name, Gang{Waiting: pods}, Facts{Fleet: fleet}, start()) }
	require.Equal(t, KindRoom, judge()[0].Dependency.Kind)
	more := makeNode(t, "n2", "4", app)
	more.Labels[pods[0].WarmLabel()] = "true"
	fleet.SetNode(ReadNode(more))
	require.Empty(t, judge())
}

func TestAGangWhoseMembersKeepApart(t *testing.T) {
	hostname := func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"job": "x"}}},
		}}}
	}
	others := func(p *corev1.Pod) {
		hostname(p)
		p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchLabels["job"] = "y"
	}
	spread := func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			TopologyKey: "zone", MaxSkew: 1, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"job": "x"}},
		}}
	}
	port := func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }
	cases := map[string]struct {
		pod   func(*corev1.Pod)
		nodes map[string]string // CPU by node; the first letter is its zone
		fits  bool
	}{
		"one a node, too few nodes":       {hostname, map[string]string{"a1": "9", "a2": "9"}, false},
		"one a node, enough of them":      {hostname, map[string]string{"a1": "9", "a2": "9", "b1": "1"}, true},
		"apart from others only":          {others, map[string]string{"a1": "9"}, true},
		"a port of the node":              {port, map[string]string{"a1": "9", "a2": "9"}, false},
		"even over zones":                 {spread, map[string]string{"a1": "9", "b1": "9"}, true},
		"a zone with too little for even": {spread, map[string]string{"a1": "9", "b1": "0"}, false},
		"nothing keeps them apart":        {func(*corev1.Pod) {}, map[string]string{"a1": "9"}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			shapes, fleet := NewShapes(), NewFleet()
			for name, cpu := range tc.nodes {
				n := makeNode(t, name, "9")
				n.Labels["zone"] = name[:1]
				fleet.SetNode(ReadNode(n))
				if cpu != "9" {
					filler := makePod(t, shapes, "filler-"+name, map[string]string{"0": "9", "1": "8"}[cpu])
					fleet.Bind(filler.UID, name, filler.Takes())
				}
			}
			var pods []*Pod
			for _, name := range []string{"a", "b", "c"} {
				pods = append(pods, makePod(t, shapes, name, "1", func(p *corev1.Pod) { p.Labels = map[string]string{"job": "x"} }, tc.pod))
			}
			require.Equal(t, tc.fits, fleet.holdTogether(pods, 3, false, start()))
			require.Equal(t, tc.fits, fleet.holds(pods[0]), "all or nothing")
		})
	}
}

func TestOverflow(t *testing.T) {
	policy := func(overflow v1alpha1.Overflow) *Policy {
		compiled, err := Compile(&v1alpha1.GatePolicy{Spec: v1alpha1.GatePolicySpec{
			Overflow: overflow, Requires: []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{}}},
		}})
		require.NoError(t, err)
		return compiled
	}
	fleet, pod := NewFleet(), makePod(t, NewShapes(), "p", "1")
	fleet.SetNode(ReadNode(makeNode(t, "cold", "4")))
	outcome := func(overflow v1alpha1.Overflow, after time.Duration) Outcome {
		return policy(overflow).Evaluate(pod, Facts{Fleet: fleet}, Clock{Now: start().Add(after), Since: start()}).Outcome
	}
	require.Equal(t, Wait, outcome(v1alpha1.OverflowRelease, 0), "no warm node at all is no overflow")
	fleet.SetNode(ReadNode(makeNode(t, "warm", "1", app)))
	fleet.Bind("other", "warm", pod.Takes())
	require.Equal(t, Lift, outcome(v1alpha1.OverflowRelease, 0), "at once")
	require.Equal(t, Wait, outcome(v1alpha1.OverflowWait, 0))
	require.Equal(t, Release, outcome(v1alpha1.OverflowWait, DefaultDeadline), "or at the deadline")
	_, ok := fleet.Reserve(pod, start())
	require.False(t, ok, "unsteered")
}

func TestObstacles(t *testing.T) {
	compile := func(r v1alpha1.Requirement) *Policy {
		p, err := Compile(&v1alpha1.GatePolicy{Spec: v1alpha1.GatePolicySpec{Requires: []v1alpha1.Requirement{r}}})
		require.NoError(t, err)
		return p
	}
	images := v1alpha1.Requirement{Images: &v1alpha1.ImagesRequirement{}}
	nodes := v1alpha1.Requirement{Nodes: &v1alpha1.NodesRequirement{Condition: "example.com/Ready"}}
	object := v1alpha1.Requirement{Object: &v1alpha1.ObjectRequirement{APIVersion: "example.com/v1", Kind: "Thing", Name: "x"}}
	agentless := makeNode(t, "n1", "1")
	agentless.Annotations = nil
	fleet, served := NewFleet(), false
	reason := func(r v1alpha1.Requirement) string {
		o, _ := compile(r).Obstacle(fleet, func(string) bool { return served })
		return o.Reason
	}
	require.Empty(t, reason(images)+reason(nodes), "a cluster without nodes is no obstacle: nodes will come")
	fleet.SetNode(ReadNode(agentless))
	require.Equal(t, ReasonNoInventory, reason(images))
	require.Equal(t, ReasonNoCondition, reason(nodes))
	require.Equal(t, ReasonKindNotServed, reason(object))
	able := makeNode(t, "n2", "1")
	able.Status.Conditions = []corev1.NodeCondition{{Type: "example.com/Ready", Status: corev1.ConditionFalse}}
	fleet.SetNode(ReadNode(able))
	served = true
	require.Empty(t, reason(images)+reason(nodes)+reason(object))
}
