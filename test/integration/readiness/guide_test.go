package readiness_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/controller"
	"headstart.dev/readiness/v1alpha1"
)

// TestTheGuidesManifests applies the guide's rules as they are.
func TestTheGuidesManifests(t *testing.T) {
	e := newEnv(t)
	rules, err := readObjects("testdata/guide-rules.yaml")
	require.NoError(t, err)
	require.Len(t, rules, 2)
	for _, r := range rules {
		require.NoError(t, e.Create(t.Context(), r, client.FieldValidation("Strict")))
		t.Cleanup(func() { e.drop(r) })
	}
	e.startController(func(_ *ctrl.Options, c *controller.Config, _ *rest.Config) {
		c.Forms = []readiness.Form{readiness.FormNative, readiness.FormGuide}
	})
	const key = readiness.TaintPrefix + "bootstrap-only"
	annotated := e.node(tainted(key), func(n *corev1.Node) {
		n.Annotations = map[string]string{"nodereadiness.k8s.io/rule": "bootstrap-only"}
	})
	selected := e.node(func(n *corev1.Node) { n.Labels["karpenter.sh/nodepool"] = "fast-scaling" })
	e.eventuallyTainted(selected.Name, key, true)
	for _, node := range []string{annotated.Name, selected.Name} {
		e.readyPod("kube-system", "aws-node-"+node, node, map[string]string{"k8s-app": "aws-node"}, "")
		e.eventuallyTainted(node, key, false)
	}
	e.waitsForTheGuidesPod()
	require.Eventually(t, func() bool {
		got := &unstructured.Unstructured{}
		got.SetGroupVersionKind(rules[0].GroupVersionKind())
		require.NoError(t, e.Get(t.Context(), client.ObjectKey{Name: "bootstrap-only"}, got))
		n, _, err := unstructured.NestedInt64(got.Object, "status", "releasedNodes")
		require.NoError(t, err)
		return n == 2
	}, settleTime, pollTime)
}

// waitsForTheGuidesPod is of the second manifest: its kubectl wait is answered from the API, for the pod of the node.
func (e *env) waitsForTheGuidesPod() {
	e.t.Helper()
	const key = readiness.TaintPrefix + "vpc-cni-only"
	node := e.node(tainted(key), func(n *corev1.Node) { n.Labels["karpenter.sh/nodepool"] = "fast-scaling-nrc" })
	other := e.node(tainted(key), func(n *corev1.Node) { n.Labels["karpenter.sh/nodepool"] = "fast-scaling-nrc" })
	e.readyPod("kube-system", "vpc-"+node.Name, node.Name, map[string]string{"k8s-app": "aws-node"}, "")
	e.stays(node.Name, "its pod is Ready and not Initialized", func(n *corev1.Node) bool { return hasTaint(n, key) })
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "vpc-" + node.Name}}
	require.NoError(e.t, e.Status().Patch(e.t.Context(), pod, client.RawPatch(types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"Initialized","status":"True"}]}}`))))
	begin := time.Now()
	e.eventuallyTainted(node.Name, key, false)
	e.t.Logf("the second manifest's node is released %s after its last fact, polled every %s", time.Since(begin), pollTime)
	require.True(e.t, hasTaint(e.get(other.Name), key), "the pod of another node is nothing to it")
}

// readyPod makes a pod on the node and reports it Ready, as a kubelet would. owner is the DaemonSet, or "".
func (e *env) readyPod(ns, name, node string, labels map[string]string, owner string) {
	e.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels}}
	if owner != "" {
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: owner, UID: types.UID(owner), Controller: &yes}}
	}
	zero := int64(0)
	pod.Spec = corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: &zero, Containers: []corev1.Container{{Name: "c", Image: "example.com/c:1"}}}
	require.NoError(e.t, e.Create(e.t.Context(), pod))
	e.t.Cleanup(func() { e.drop(pod) })
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	require.NoError(e.t, e.Status().Update(e.t.Context(), pod))
}

func TestTheAgentsReportOfAPodReleasesBeforeThePodsOwnStatusComes(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Conditions = nil
		r.Spec.RequiredDaemonSets = []v1alpha1.RequiredDaemonSet{{Namespace: "default", Name: e.pool, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"ds": e.pool}}}}
	})
	native, err := readiness.FromNative(rule)
	require.NoError(t, err)
	report := string(native.DaemonSets[0].Report)
	e.startController()
	node, other := e.node(tainted(taintKey(rule))), e.node(tainted(taintKey(rule)))
	held := func(name, why string) {
		e.stays(name, why, func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	}
	e.report(node.Name, report, corev1.ConditionTrue)
	held(node.Name, "a report of a pod that nobody has made")
	for _, n := range []*corev1.Node{node, other} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: n.Name, Labels: map[string]string{"ds": e.pool}}}
		pod.Spec = corev1.PodSpec{NodeName: n.Name, Containers: []corev1.Container{{Name: "c", Image: "example.com/c:1"}}}
		require.NoError(t, e.Create(t.Context(), pod))
		t.Cleanup(func() { e.drop(pod) })
	}
	e.eventuallyTainted(node.Name, taintKey(rule), false)
	held(other.Name, "its own agent has said nothing")
}

func (e *env) daemonSet(name string, tolerations ...corev1.Toleration) {
	e.t.Helper()
	labels := map[string]string{"ds": name}
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "example.com/c:1"}}, Tolerations: tolerations,
			NodeSelector: map[string]string{"pool": e.pool},
		}},
	}}
	require.NoError(e.t, e.Create(e.t.Context(), ds))
	e.t.Cleanup(func() { e.drop(ds) })
}

func TestEveryRequirementIsWaitedFor(t *testing.T) {
	e := newEnv(t)
	everything := corev1.Toleration{Operator: corev1.TolerationOpExists}
	named, other := e.pool+"-named", e.pool+"-other"
	e.daemonSet(named, everything)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Conditions = nil
		r.Spec.RequiredDaemonSets = []v1alpha1.RequiredDaemonSet{{Namespace: "default", Name: named}}
		r.Spec.OptionalDaemonSets = []v1alpha1.OptionalDaemonSet{{Namespace: "default", Name: other, ReadyLabel: "headstart.dev/other-ready"}}
		r.Spec.CSIDrivers = []string{"ebs.csi.example.com"}
		r.Spec.Resources = []v1alpha1.RequiredResource{{Name: "example.com/gpu", Min: resource.MustParse("2")}}
	})
	e.startController()
	node := e.node()
	held := func(why string) {
		e.eventuallyTainted(node.Name, taintKey(rule), true)
		e.stays(node.Name, why, func(n *corev1.Node) bool { return hasTaint(n, taintKey(rule)) })
	}
	held("nothing is there")
	e.readyPod("default", named, node.Name, map[string]string{"ds": named}, named)
	held("driver and resource are missing")
	csi := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node.Name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "ebs.csi.example.com", NodeID: "i-1"}}}}
	require.NoError(t, e.Create(t.Context(), csi))
	t.Cleanup(func() { e.drop(csi) })
	held("the resource is missing")
	live := e.get(node.Name)
	live.Status.Capacity = corev1.ResourceList{"example.com/gpu": resource.MustParse("2")}
	live.Status.Allocatable = live.Status.Capacity
	require.NoError(t, e.Status().Update(t.Context(), live))
	released := e.eventuallyTainted(node.Name, taintKey(rule), false)
	require.NotContains(t, released.Labels, "headstart.dev/other-ready")
	e.daemonSet(other)
	e.readyPod("default", other, node.Name, map[string]string{"ds": other}, other)
	e.eventually(node.Name, "the optional one's label", func(n *corev1.Node) bool { return n.Labels["headstart.dev/other-ready"] == "true" })
}

func TestUnsatisfiableRuleSaysSo(t *testing.T) {
	e := newEnv(t)
	e.daemonSet(e.pool)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.RequiredDaemonSets = []v1alpha1.RequiredDaemonSet{{Namespace: "default", Name: e.pool}}
	})
	e.startController()
	require.Eventually(t, func() bool {
		got := &v1alpha1.NodeReadinessRule{}
		require.NoError(t, e.Get(t.Context(), client.ObjectKeyFromObject(rule), got))
		for _, c := range got.Status.Conditions {
			if c.Type == "Unsatisfiable" && c.Status == metav1.ConditionTrue {
				return true
			}
		}
		return false
	}, settleTime, pollTime)
}

// TestARuleWithACommandIsRefusedUntilAnAgentRunsIt is of agents without allowExec, and then of one with it.
func TestARuleWithACommandIsRefusedUntilAnAgentRunsIt(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Conditions = nil
		r.Spec.RequiredDaemonSets = []v1alpha1.RequiredDaemonSet{{
			Namespace: "default", Name: "refused-agent", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"ds": e.pool}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/ready"}}}},
		}}
	})
	native, err := readiness.FromNative(rule)
	require.NoError(t, err)
	probe := native.DaemonSets[0].ProbeCondition
	e.startController()
	node := e.node()
	e.eventuallyCondition(rule, "Accepted", metav1.ConditionFalse, "kubectl wait --for=condition")
	require.False(t, hasTaint(e.get(node.Name), taintKey(rule)))
	refusal := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":"False","reason":%q}]}}`, probe, readiness.ReasonExecNotAllowed)
	require.NoError(t, e.Status().Patch(t.Context(), node, client.RawPatch(types.StrategicMergePatchType, []byte(refusal))))
	e.stays(node.Name, "an agent that may not run it is no reason to hold", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
	e.report(node.Name, string(probe), corev1.ConditionFalse)
	e.eventuallyCondition(rule, "Accepted", metav1.ConditionTrue, "")
	second := e.node()
	e.eventuallyTainted(second.Name, taintKey(rule), true)
	require.NoError(t, e.Status().Patch(t.Context(), second, client.RawPatch(types.StrategicMergePatchType, []byte(refusal))))
	e.eventuallyCondition(rule, "Unsatisfiable", metav1.ConditionTrue, "allowExec: true")
}

// eventuallyCondition waits until the rule's status says so.
func (e *env) eventuallyCondition(rule *v1alpha1.NodeReadinessRule, kind string, status metav1.ConditionStatus, message string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		got := &v1alpha1.NodeReadinessRule{}
		require.NoError(e.t, e.Get(e.t.Context(), client.ObjectKeyFromObject(rule), got))
		c := meta.FindStatusCondition(got.Status.Conditions, kind)
		return c != nil && c.Status == status && strings.Contains(c.Message, message)
	}, settleTime, pollTime, "%s=%s: %s", kind, status, message)
}

func TestTimeoutDeletesTheNodeClaimNeverTheNode(t *testing.T) {
	e := newEnv(t)
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.OnTimeout = v1alpha1.TimeoutDeleteNodeClaim
		r.Spec.ReadinessTimeout = &metav1.Duration{Duration: 2e9}
	})
	e.installNodeClaims()
	claim := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": map[string]any{"name": e.pool}}}
	require.Eventually(t, func() bool { return e.Create(t.Context(), claim) == nil }, settleTime, pollTime, "the CRD is served")
	e.startController()
	node := e.node(tainted(taintKey(rule)), func(n *corev1.Node) {
		n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: e.pool, UID: claim.GetUID()}}
	})
	require.Eventually(t, func() bool {
		err := e.Get(t.Context(), client.ObjectKey{Name: e.pool}, claim)
		return client.IgnoreNotFound(err) == nil && err != nil
	}, settleTime, pollTime)
	require.True(t, hasTaint(e.get(node.Name), taintKey(rule)), "the node is Karpenter's to delete, and held meanwhile")
}
