package warmpool_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

const staticNodePool = `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: static, annotations: {headstart.dev/warm-pool: %[1]s/static}}
spec:
  replicas: 0
  template:
    metadata: {labels: {pool: %[1]s-static}}
    spec:
      requirements:
      - {key: node.kubernetes.io/instance-type, operator: In, values: [c-4x-amd64-linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
      expireAfter: Never
`

// The two backends without pods of their own, served by Karpenter with its feature gates on.
func TestKarpenterBackends(t *testing.T) {
	t.Parallel() // with the other test that has a cluster of its own
	c, ns := karpenterWorld(t, "StaticCapacity=true,CapacityBuffer=true")
	create(t, c, fmt.Sprintf(staticNodePool, ns))
	create(t, c, fmt.Sprintf(nodePoolManifest, "fast", ns, shortConsolidateAfter))

	// A static pool counts whole free nodes; one with work on it is replaced.
	static := warmPoolNamed(t, c, ns, "static", func(s *v1alpha1.WarmPoolSpec) {
		s.Backend, s.Min = v1alpha1.BackendStaticNodePool, 2
		s.Template.NodeSelector = map[string]string{"karpenter.sh/nodepool": "static"}
	})
	eventually(t, c, static, "two free nodes", ready(2))
	workload(t, c, ns, "resident", 1, func(spec *corev1.PodSpec) {
		spec.NodeSelector = map[string]string{"karpenter.sh/nodepool": "static"}
	})
	bound(t, c, ns, "resident", 1)
	require.Eventually(t, func() bool { return len(nodeNames(t, c)) == 3 }, patience, tick, "a third node in place of the one that works")
	eventually(t, c, static, "two free nodes again", ready(2))

	// A buffer is room that the autoscaler keeps; the size is ours.
	buffered := warmPoolNamed(t, c, ns, "buffered", func(s *v1alpha1.WarmPoolSpec) {
		s.Backend, s.Min = v1alpha1.BackendCapacityBuffer, 2
		s.Template.NodeSelector = map[string]string{"karpenter.sh/nodepool": "fast"}
	})
	eventually(t, c, buffered, "Karpenter makes room", func(wp *v1alpha1.WarmPool) bool { return wp.Status.Ready >= 2 })
	require.Empty(t, pods(t, c, ns, map[string]string{"headstart.dev/warm-pool": "buffered"}), "there are no pause pods")
	buffer := &unstructured.Unstructured{}
	buffer.SetAPIVersion("autoscaling.x-k8s.io/v1beta1")
	buffer.SetKind("CapacityBuffer")
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(buffered), buffer))
	require.Len(t, buffer.GetOwnerReferences(), 1)
	scale(t, c, buffered, "min", 3)
	require.Eventually(t, func() bool {
		require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(buffered), buffer))
		n, _, err := unstructured.NestedInt64(buffer.Object, "spec", "replicas")
		return err == nil && n == 3
	}, patience, tick, "the buffer follows")

	// Another backend takes over, and nothing of the first is left.
	require.NoError(t, c.Patch(t.Context(), buffered, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"backend":"PausePods","min":1}}`))))
	eventually(t, c, buffered, "pause pods hold it now", ready(1))
	require.True(t, client.IgnoreNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(buffered), buffer)) == nil)
	require.Error(t, c.Get(t.Context(), client.ObjectKeyFromObject(buffered), buffer), "the buffer is gone")

	// A NodePool that names no pool, or another, is not touched.
	thief := warmPoolNamed(t, c, ns, "thief", func(s *v1alpha1.WarmPoolSpec) {
		s.Backend, s.Min = v1alpha1.BackendStaticNodePool, 0
		s.Template.NodeSelector = map[string]string{"karpenter.sh/nodepool": "static"}
	})
	eventually(t, c, thief, "the NodePool is another's", conditionIs("Ready", metav1.ConditionFalse, "NotOptedIn"))
	require.Len(t, nodesOf(t, c, "static"), 3)

	// A NodePool that is not static is refused, with what to do.
	optIn(t, c, "fast", ns+"/wrong")
	wrong := warmPoolNamed(t, c, ns, "wrong", func(s *v1alpha1.WarmPoolSpec) {
		s.Backend, s.Min = v1alpha1.BackendStaticNodePool, 1
		s.Template.NodeSelector = map[string]string{"karpenter.sh/nodepool": "fast"}
	})
	eventually(t, c, wrong, "not static", conditionIs("Ready", metav1.ConditionFalse, "NodePoolNotStatic"))
}

// optIn lets a pool size a NodePool.
func optIn(t *testing.T, c client.Client, nodePool, pool string) {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetAPIVersion("karpenter.sh/v1")
	object.SetKind("NodePool")
	object.SetName(nodePool)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"headstart.dev/warm-pool":%q}}}`, pool)
	require.NoError(t, c.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", patch)))
}

// nodesOf lists the nodes of a NodePool.
func nodesOf(t *testing.T, c client.Client, nodePool string) []corev1.Node {
	t.Helper()
	var list corev1.NodeList
	require.NoError(t, c.List(t.Context(), &list, client.MatchingLabels{"karpenter.sh/nodepool": nodePool}))
	return list.Items
}
