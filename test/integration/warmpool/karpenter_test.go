package warmpool_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/test/testenv"
)

const (
	// bootTime is from a node's registration to its being Ready: long enough to tell a pod that waited for a node from one
	// that did not, whatever the machine is busy with.
	bootTime = 6 * time.Second
	// soakVariable asks for the long form of the soak, with the consolidateAfter of 30 s: HEADSTART_SOAK=30m.
	soakVariable = "HEADSTART_SOAK"
	// shortSoak covers consolidateAfter, Karpenter's poll of 10 s and its validation of 15 s, and a little more.
	shortSoak, shortConsolidateAfter = 35 * time.Second, 5 * time.Second
)

const nodePoolManifest = `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: %s}
spec:
  template:
    metadata: {labels: {pool: %s}}
    spec:
      requirements:
      - {key: node.kubernetes.io/instance-type, operator: In, values: [c-4x-amd64-linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
      expireAfter: Never
  disruption: {consolidationPolicy: WhenEmptyOrUnderutilized, consolidateAfter: %s, budgets: [{nodes: "100%%"}]}
`

// karpenterWorld is a cluster of its own whose nodes Karpenter makes.
func karpenterWorld(t *testing.T, featureGates string) (client.WithWatch, string) {
	t.Helper()
	cp := testenv.StartControlPlane(t, planeConfig())
	testenv.StartKarpenter(t, cp, testenv.KarpenterConfig{FeatureGates: featureGates})
	c := newClient(t, cp)
	create(t, c, "apiVersion: karpenter.kwok.sh/v1alpha1\nkind: KWOKNodeClass\nmetadata: {name: default}\n")
	kubelets(t, cp, 0)
	bootNodes(t, cp)
	startController(t, cp.Config(), time.Now)
	return c, namespace(t, c)
}

func create(t testing.TB, c client.Client, manifest string) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(manifest), &object.Object))
	require.NoError(t, c.Create(t.Context(), object))
	return object
}

// bootNodes makes every node that appears Ready after bootTime, as its kubelet would.
func bootNodes(t testing.TB, cp *testenv.ControlPlane) {
	t.Helper()
	c := newClient(t, cp)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.Watch(ctx, &corev1.NodeList{})
	require.NoError(t, err)
	var boots sync.WaitGroup
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer boots.Wait()
		for event := range events.ResultChan() {
			n, ok := event.Object.(*corev1.Node)
			if !ok || event.Type != watch.Added {
				continue
			}
			boots.Go(func() {
				select {
				case <-ctx.Done():
					return
				case <-time.After(bootTime):
				}
				if err := bootNode(ctx, c, n.Name); client.IgnoreNotFound(err) != nil && ctx.Err() == nil {
					t.Errorf("boot node %s: %v", n.Name, err)
				}
			})
		}
	}()
}

func bootNode(ctx context.Context, c client.Client, name string) error {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	status := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady","lastHeartbeatTime":%[1]q,"lastTransitionTime":%[1]q}]}}`,
		time.Now().UTC().Format(time.RFC3339))
	if err := c.Status().Patch(ctx, n, client.RawPatch("application/strategic-merge-patch+json", status)); err != nil {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(n), n); err != nil {
			return err
		}
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == corev1.TaintNodeNotReady })
		return c.Update(ctx, n)
	})
}

// bound waits until all pods with a label are bound, and returns the nodes and how long it took since the call.
func bound(t testing.TB, c client.Client, ns, app string, count int) (map[string]bool, time.Duration) {
	t.Helper()
	begin := time.Now()
	nodes := map[string]bool{}
	require.Eventually(t, func() bool {
		clear(nodes)
		all := pods(t, c, ns, map[string]string{"app": app})
		for _, pod := range all {
			if pod.Spec.NodeName == "" {
				return false
			}
			nodes[pod.Spec.NodeName] = true
		}
		return len(all) == count
	}, patience, tick/2, "all of %s are bound: %s", app, lazy(func() string { return dump(t, c, ns) }))
	return nodes, time.Since(begin)
}

func nodeNames(t testing.TB, c client.Client) map[string]bool {
	t.Helper()
	var list corev1.NodeList
	require.NoError(t, c.List(t.Context(), &list))
	names := map[string]bool{}
	for i := range list.Items {
		names[list.Items[i].Name] = true
	}
	return names
}

// A burst without a pool waits for nodes, one onto a warm pool does not; the pool refills once; an idle pool makes no
// node come or go; a pool that shrinks gives whole nodes back.
func TestKarpenterPool(t *testing.T) {
	t.Parallel() // with the other test that has a cluster of its own
	c, ns := karpenterWorld(t, "")
	soak, consolidateAfter := shortSoak, shortConsolidateAfter
	if text := os.Getenv(soakVariable); text != "" {
		var err error
		soak, err = time.ParseDuration(text)
		require.NoError(t, err)
		consolidateAfter = 30 * time.Second
	}
	create(t, c, fmt.Sprintf(nodePoolManifest, "fast", ns, consolidateAfter))

	before := nodeNames(t, c)
	workload(t, c, ns, "cold", 4, nil)
	nodes, took := bound(t, c, ns, "cold", 4)
	t.Logf("a burst of 4 without a pool was bound after %v", took.Round(time.Millisecond))
	for name := range nodes {
		require.NotContains(t, before, name, "there was no room: a node had to come")
	}
	require.GreaterOrEqual(t, took, bootTime)

	wp := warmPool(t, c, ns, func(s *v1alpha1.WarmPoolSpec) {
		s.Min = 6
		s.Budget = &v1alpha1.WarmPoolBudget{CostPerReplicaHour: "0.15"}
	})
	eventually(t, c, wp, "the pool is filled by Karpenter", ready(6))
	before = nodeNames(t, c)
	workload(t, c, ns, "burst", 4, nil)
	nodes, took = bound(t, c, ns, "burst", 4)
	t.Logf("a burst of 4 onto the warm pool was bound after %v", took.Round(time.Millisecond))
	for name := range nodes {
		require.Contains(t, before, name, "it took the replicas' place and waited for no node")
	}
	// Some of the burst may have found room beside the replicas.
	got := eventually(t, c, wp, "refilled", func(wp *v1alpha1.WarmPool) bool { return wp.Status.Consumed > 0 && ready(6)(wp) })
	require.LessOrEqual(t, got.Status.Consumed, int64(4), "each pod takes one replica at most")
	got = eventually(t, c, wp, "the saving is measured", func(wp *v1alpha1.WarmPool) bool {
		return wp.Status.Saving != nil && wp.Status.Saving.WaitAvoided != nil
	})
	require.Greater(t, got.Status.Saving.ColdStart.Duration, got.Status.Saving.WarmStart.Duration)
	t.Logf("cold start %v, warm start %v, wait avoided %v", got.Status.Saving.ColdStart.Duration, got.Status.Saving.WarmStart.Duration, got.Status.Saving.WaitAvoided.Duration)
	t.Logf("%d replicas were consumed; refill p95 %v, lead p95 %v", got.Status.Consumed, got.Status.RefillP95.Duration, got.Status.LeadP95.Duration)

	buffered := warmPoolNamed(t, c, ns, "buffered", func(s *v1alpha1.WarmPoolSpec) { s.Backend, s.Min = v1alpha1.BackendCapacityBuffer, 1 })
	eventually(t, c, buffered, "the feature gate is off", conditionIs("Ready", metav1.ConditionFalse, "NotServed"))

	idle(t, c, wp, consolidateAfter, soak)

	scale(t, c, wp, "min", 0)
	require.Eventually(t, func() bool {
		var left corev1.PodList
		require.NoError(t, c.List(t.Context(), &left, client.InNamespace(ns)))
		busy := map[string]bool{}
		for i := range left.Items {
			busy[left.Items[i].Spec.NodeName] = true
		}
		return len(left.Items) == 8 && len(nodeNames(t, c)) == len(busy)
	}, 2*patience, tick*4, "only nodes with work are left")
}

// idle lets consolidation settle what the burst left behind and then counts nodes that come and go.
func idle(t *testing.T, c client.WithWatch, wp *v1alpha1.WarmPool, settle, soak time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
		return
	case <-time.After(settle + 28*time.Second): // Karpenter's poll, its validation, and the drain
	}
	eventually(t, c, wp, "settled", ready(6))
	steady := nodeNames(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), soak)
	defer cancel()
	claims := &unstructured.UnstructuredList{}
	claims.SetAPIVersion("karpenter.sh/v1")
	claims.SetKind("NodeClaimList")
	require.NoError(t, c.List(ctx, claims))
	events, err := c.Watch(ctx, claims, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: claims.GetResourceVersion()}})
	require.NoError(t, err)
	churn := 0
	for open := true; open; {
		select {
		case <-ctx.Done():
			open = false
		case event, ok := <-events.ResultChan():
			open = ok
			if event.Type == watch.Added || event.Type == watch.Deleted {
				churn++
			}
		}
	}
	t.Logf("idle for %v with consolidateAfter %v: %d NodeClaims came or went; %d nodes", soak, settle, churn, len(steady))
	require.Zero(t, churn)
	require.Equal(t, steady, nodeNames(t, c))
}
