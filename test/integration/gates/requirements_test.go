package gates_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

func TestLiftWhenANodeHasTheCondition(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/nodes"
	policy(t, c, "nodes", v1alpha1.GatePolicySpec{GateName: gate, Requires: []v1alpha1.Requirement{
		{Nodes: &v1alpha1.NodesRequirement{Condition: "headstart.dev/CSIReady", Min: 1}},
	}})
	n := node(t, c, "nodes-csi", capacity("4"))
	pod := makePod(ns, "web", gate).create(t, c)
	stayGated(t, c, pod, gate)

	require.NoError(t, c.Get(t.Context(), keyOf(n), n))
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: "headstart.dev/CSIReady", Status: corev1.ConditionTrue, Reason: "Registered"})
	require.NoError(t, c.Status().Update(t.Context(), n))
	awaitGates(t, c, pod)
}

func TestLiftWhenAnExpressionHolds(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/object"
	policy(t, c, "object", v1alpha1.GatePolicySpec{GateName: gate, Requires: []v1alpha1.Requirement{
		{Object: &v1alpha1.ObjectRequirement{APIVersion: "v1", Kind: "ConfigMap", Name: "flags", Expression: "object.data.ready == 'true'"}},
	}})
	pod := makePod(ns, "web", gate).create(t, c)
	cm := configMap(t, c, ns, "flags")
	stayGated(t, c, pod, gate)
	cm.Data = map[string]string{"ready": "false"}
	require.NoError(t, c.Update(t.Context(), cm))
	stayGated(t, c, pod, gate)
	cm.Data["ready"] = "true"
	require.NoError(t, c.Update(t.Context(), cm))
	awaitGates(t, c, pod)
}

func TestLiftWhenAServiceHasEndpoints(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/service"
	policy(t, c, "service", v1alpha1.GatePolicySpec{GateName: gate, Requires: []v1alpha1.Requirement{
		{Service: &v1alpha1.ServiceRequirement{Name: "redis", MinReadyEndpoints: 2}},
	}})
	pod := makePod(ns, "web", gate).create(t, c)
	ready, notReady := true, false
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: "redis-1", Labels: map[string]string{discoveryv1.LabelServiceName: "redis"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}},
			{Addresses: []string{"10.0.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &notReady}},
		},
	}
	require.NoError(t, c.Create(t.Context(), slice))
	stayGated(t, c, pod, gate)
	slice.Endpoints[1].Conditions.Ready = &ready
	require.NoError(t, c.Update(t.Context(), slice))
	awaitGates(t, c, pod)
}

func gang(size int32) []v1alpha1.Requirement {
	return []v1alpha1.Requirement{{References: &v1alpha1.ReferencesRequirement{}}, {Gang: &v1alpha1.GangRequirement{Label: "job-name", Size: size}}}
}

func TestGangIsLiftedAllOrNothing(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/gang"
	policy(t, c, "gang", v1alpha1.GatePolicySpec{GateName: gate, Requires: gang(3)})
	node(t, c, "gang-small", capacity("2"))

	member := func(name, config string) *corev1.Pod {
		return makePod(ns, name, gate).label("job-name", "train").cpu("1").envFrom(config).create(t, c)
	}
	a, b := member("a", "there"), member("b", "there")
	configMap(t, c, ns, "there")
	stayGated(t, c, a, gate) // a member is missing

	third := member("c", "late")
	stayGated(t, c, b, gate) // the third member's ConfigMap is missing
	configMap(t, c, ns, "late")
	stayGated(t, c, third, gate) // there is room for two only

	node(t, c, "gang-more", capacity("1"))
	for _, pod := range []*corev1.Pod{a, b, third} {
		awaitGates(t, c, pod)
	}
	// A member that comes later, in place of one that failed, follows at once.
	awaitGates(t, c, member("d", "there"))
}

func TestHalfLiftedGangIsCompletedAfterARestart(t *testing.T) {
	c := newClient(t)
	ns, gate := namespace(t, c), "example.com/gang-half"
	policy(t, c, "gang-half", v1alpha1.GatePolicySpec{GateName: gate, Requires: gang(3)})
	// What a controller leaves that is killed between two patches: one member is past the gate, two are not.
	makePod(ns, "a").label("job-name", "train").create(t, c)
	b := makePod(ns, "b", gate).label("job-name", "train").create(t, c)
	d := makePod(ns, "c", gate).label("job-name", "train").create(t, c)
	other := makePod(ns, "d", gate).label("job-name", "other").create(t, c)
	startController(t, fastConfig())
	awaitGates(t, c, b)
	awaitGates(t, c, d)
	stayGated(t, c, other, gate)
}

func readPolicy(t testing.TB, c client.Client, name string) *v1alpha1.GatePolicy {
	t.Helper()
	p := &v1alpha1.GatePolicy{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: name}, p))
	return p
}

func TestPolicyStatusAndEvents(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/status"
	policy(t, c, "status-a", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})
	eventually(t, func() bool {
		return meta.IsStatusConditionTrue(readPolicy(t, c, "status-a").Status.Conditions, "Accepted")
	}, "the policy was not accepted")
	policy(t, c, "status-b", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})
	policy(t, c, "status-c", v1alpha1.GatePolicySpec{GateName: "example.com/invalid", Requires: []v1alpha1.Requirement{
		{Object: &v1alpha1.ObjectRequirement{APIVersion: "v1", Kind: "ConfigMap", Name: "x", Expression: "object.data +"}},
	}})
	policy(t, c, "status-d", v1alpha1.GatePolicySpec{GateName: "example.com/no-such-kind", Requires: []v1alpha1.Requirement{
		{Object: &v1alpha1.ObjectRequirement{APIVersion: "nowhere.example/v1", Kind: "Thing", Name: "x"}},
	}})
	reason := func(name, condition string) string {
		if c := meta.FindStatusCondition(readPolicy(t, c, name).Status.Conditions, condition); c != nil {
			return c.Reason
		}
		return ""
	}
	eventually(t, func() bool { return reason("status-b", "Accepted") == "Conflict" }, "no Conflict")
	eventually(t, func() bool { return reason("status-c", "Accepted") == "Invalid" }, "no Invalid")
	eventually(t, func() bool { return reason("status-d", "Satisfiable") == "KindNotServed" }, "the policy does not say that it can never be satisfied")
	awaitEvent(t, c, "default", "status-b", "Conflict", corev1.EventTypeWarning)
	awaitEvent(t, c, "default", "status-c", "Invalid", corev1.EventTypeWarning)

	pod := makePod(ns, "web", gate).envFrom("flags").create(t, c)
	eventually(t, func() bool {
		s := readPolicy(t, c, "status-a").Status
		return s.WaitingPods == 1 && s.OldestWaiting != nil && s.OldestWaiting.Equal(&pod.CreationTimestamp)
	}, "the waiting pod is not counted")
	waiting := awaitEvent(t, c, ns, "web", "GateWaiting", corev1.EventTypeNormal)
	require.Contains(t, waiting.Message, "ConfigMap "+ns+"/flags does not exist")
	configMap(t, c, ns, "flags")
	awaitGates(t, c, pod)
	awaitEvent(t, c, ns, "web", "GateLifted", corev1.EventTypeNormal)
	eventually(t, func() bool {
		s := readPolicy(t, c, "status-a").Status
		return s.WaitingPods == 0 && s.LiftedTotal == 1 && s.OldestWaiting == nil
	}, "the lifted gate is not counted")
}

// awaitEvent waits for an event; it must be the only one of its reason on the object.
func awaitEvent(t testing.TB, c client.Client, namespace, object, reason, kind string) corev1.Event {
	t.Helper()
	var found []corev1.Event
	eventually(t, func() bool {
		var list corev1.EventList
		require.NoError(t, c.List(t.Context(), &list, client.InNamespace(namespace)))
		found = nil
		for _, event := range list.Items {
			if event.InvolvedObject.Name == object && event.Reason == reason {
				found = append(found, event)
			}
		}
		return len(found) > 0
	}, "no event %s on %s", reason, object)
	require.Len(t, found, 1)
	require.Equal(t, kind, found[0].Type)
	return found[0]
}

func TestARestartWithNothingChangedWritesNothing(t *testing.T) {
	c := newClient(t)
	ns, gate := namespace(t, c), "example.com/restart"
	policy(t, c, "restart", v1alpha1.GatePolicySpec{GateName: gate, Requires: references(), Deadline: &metav1.Duration{Duration: time.Hour}})
	pod := makePod(ns, "web", gate).envFrom("flags").create(t, c)
	stop := startController(t, fastConfig())
	awaitEvent(t, c, ns, "web", "GateWaiting", corev1.EventTypeNormal)
	eventually(t, func() bool { return readPolicy(t, c, "restart").Status.WaitingPods == 1 }, "the waiting pod is not counted")
	stop()
	before, podBefore := readPolicy(t, c, "restart"), read(t, c, pod)
	written := countWrites(t)
	startController(t, written.config)
	never(t, func() bool { return written.count() > 0 }, "a write: %v", written)
	never(t, func() bool { return written.count() > 0 }, "a write: %v", written)
	never(t, func() bool { return written.count() > 0 }, "a write: %v", written)
	require.Equal(t, before.ResourceVersion, readPolicy(t, c, "restart").ResourceVersion)
	require.Equal(t, podBefore.ResourceVersion, read(t, c, pod).ResourceVersion)
}
