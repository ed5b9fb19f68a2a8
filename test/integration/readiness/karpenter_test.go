package readiness_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
	"headstart.dev/test/testenv"
)

const (
	// karpenterTime bounds a NodeClaim's way to a registered node, and a node's drain, on a busy machine.
	karpenterTime = 3 * time.Minute
	// heldTime is how long a registered node is held while its pod waits: several rounds of Karpenter's provisioner, which
	// looks at pending pods at least every 10 s.
	heldTime = 30 * time.Second
)

// karpenterPool is a NodePool as a user of Headstart has it: the rule named by annotation, its taint as a startup taint.
const karpenterPool = `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: %[1]s}
spec:
  template:
    metadata:
      labels: {pool: %[1]s}
      annotations: {nodereadiness.k8s.io/rule: %[1]s}
    spec:
      startupTaints: [{key: readiness.k8s.io/%[1]s, value: pending, effect: NoSchedule}]
      requirements:
      - {key: node.kubernetes.io/instance-type, operator: In, values: [c-4x-amd64-linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
      expireAfter: Never
  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: Never}
`

func (e *env) createYAML(manifest string) {
	e.t.Helper()
	object := &unstructured.Unstructured{}
	require.NoError(e.t, yaml.Unmarshal([]byte(manifest), &object.Object))
	require.NoError(e.t, e.Create(e.t.Context(), object))
}

// pendingPod is a pod that needs a node of the pool.
func (e *env) pendingPod(pool string) client.ObjectKey {
	e.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pool}, Spec: corev1.PodSpec{
		NodeSelector: map[string]string{"pool": pool},
		Containers: []corev1.Container{{Name: "c", Image: "example.com/c:1", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
		}}},
	}}
	require.NoError(e.t, e.Create(e.t.Context(), pod))
	return client.ObjectKeyFromObject(pod)
}

// claims are the names of the pool's NodeClaims that are not being deleted.
func (e *env) claims(pool string) []string {
	e.t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("karpenter.sh/v1")
	list.SetKind("NodeClaimList")
	require.NoError(e.t, e.List(e.t.Context(), list, client.MatchingLabels{"karpenter.sh/nodepool": pool}))
	var names []string
	for i := range list.Items {
		if list.Items[i].GetDeletionTimestamp() == nil {
			names = append(names, list.Items[i].GetName())
		}
	}
	return names
}

// bought waits for a registered node of the pool that is none of old, and boots it as its kubelet would.
func (e *env) bought(pool string, old ...string) *corev1.Node {
	e.t.Helper()
	var name string
	require.Eventually(e.t, func() bool {
		nodes := &corev1.NodeList{}
		require.NoError(e.t, e.List(e.t.Context(), nodes, client.MatchingLabels{"pool": pool, "karpenter.sh/registered": "true"}))
		for i := range nodes.Items {
			if name = nodes.Items[i].Name; !slices.Contains(old, name) {
				return true
			}
		}
		return false
	}, karpenterTime, 100*time.Millisecond, "Karpenter buys a node")
	e.report(name, string(corev1.NodeReady), corev1.ConditionTrue)
	require.NoError(e.t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node := e.get(name)
		node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady })
		return e.Update(e.t.Context(), node)
	}))
	return e.get(name)
}

func (e *env) eventuallyBound(pod client.ObjectKey, node string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		got := &corev1.Pod{}
		require.NoError(e.t, e.Get(e.t.Context(), pod, got))
		return got.Spec.NodeName == node
	}, settleTime, pollTime, "%s is bound to %s", pod.Name, node)
}

// TestKarpenter runs Karpenter itself, with its KWOK provider.
func TestKarpenter(t *testing.T) {
	cp := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{Scheduler: true, CRDDirs: crdDirs})
	testenv.StartKarpenter(t, cp, testenv.KarpenterConfig{})
	require.NoError(t, deployRBAC(t.Context(), cp))
	e := newEnvOn(t, cp)
	e.createYAML("apiVersion: karpenter.kwok.sh/v1alpha1\nkind: KWOKNodeClass\nmetadata: {name: default}\n")
	e.startController()
	t.Run("a registered node is never bought twice because of our taint", func(t *testing.T) {
		e := newEnvOn(t, cp)
		e.heldAndReleased("held-once")
	})
	t.Run("DeleteNodeClaim on timeout makes Karpenter replace the node", func(t *testing.T) {
		e := newEnvOn(t, cp)
		e.replacedOnTimeout("held-too-long")
	})
}

func (e *env) heldAndReleased(pool string) {
	e.t.Helper()
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) { r.Name, r.Spec.NodeSelector = pool, nil })
	e.createYAML(fmt.Sprintf(karpenterPool, pool))
	pod := e.pendingPod(pool)
	node := e.bought(pool)
	require.True(e.t, hasTaint(node, taintKey(rule)), "from registration on")
	claim := e.claims(pool)
	require.Len(e.t, claim, 1)
	for begin := time.Now(); time.Since(begin) < heldTime; time.Sleep(200 * time.Millisecond) { //nolint:forbidigo // Karpenter's clock is not ours to turn
		require.Equal(e.t, claim, e.claims(pool), "the pod waits for the node that is there")
		require.True(e.t, hasTaint(e.get(node.Name), taintKey(rule)))
	}
	e.report(node.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyBound(pod, node.Name)
	require.Equal(e.t, claim, e.claims(pool))
	require.Eventually(e.t, func() bool { return e.get(node.Name).Labels["karpenter.sh/initialized"] == "true" }, karpenterTime, pollTime)

	// A bootstrap that is over, and a node that Karpenter counts on: nothing comes back.
	e.report(node.Name, testCondition, corev1.ConditionFalse)
	e.stays(node.Name, "not held again", func(n *corev1.Node) bool { return !hasTaint(n, taintKey(rule)) })
	require.Equal(e.t, claim, e.claims(pool))
}

func (e *env) replacedOnTimeout(pool string) {
	e.t.Helper()
	rule := e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Name, r.Spec.NodeSelector = pool, nil
		r.Spec.OnTimeout, r.Spec.ReadinessTimeout = v1alpha1.TimeoutDeleteNodeClaim, &metav1.Duration{Duration: 20 * time.Second}
	})
	e.createYAML(fmt.Sprintf(karpenterPool, pool))
	pod := e.pendingPod(pool)
	first := e.bought(pool)
	require.True(e.t, hasTaint(first, taintKey(rule)))
	second := e.bought(pool, first.Name)
	e.report(second.Name, testCondition, corev1.ConditionTrue)
	e.eventuallyBound(pod, second.Name)
	require.Eventually(e.t, func() bool {
		err := e.Get(e.t.Context(), client.ObjectKey{Name: first.Name}, &corev1.Node{})
		return err != nil && client.IgnoreNotFound(err) == nil
	}, karpenterTime, 100*time.Millisecond, "Karpenter ends the first")
	require.Len(e.t, e.claims(pool), 1)
	require.Equal(e.t, readiness.EntryDone, e.record(second.Name).Rules[rule.UID].State)
}

func (e *env) record(node string) readiness.Record {
	e.t.Helper()
	rec, err := readiness.DecodeRecord(e.get(node))
	require.NoError(e.t, err)
	return rec
}
