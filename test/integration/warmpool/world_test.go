package warmpool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
)

// kubelets runs pods that are bound, as far as the API shows it: they turn Running and Ready after delay. Nodes are
// kept as they are.
func kubelets(t testing.TB, cp *testenv.ControlPlane, delay time.Duration) {
	t.Helper()
	c := newClient(t, cp)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.Watch(ctx, &corev1.PodList{})
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for event := range events.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok || event.Type == watch.Deleted || pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodRunning {
				continue
			}
			if delay > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(delay):
				}
			}
			if err := runPod(ctx, c, pod); client.IgnoreNotFound(err) != nil && ctx.Err() == nil {
				t.Errorf("run pod %s: %v", pod.Name, err)
			}
		}
	}()
}

func runPod(ctx context.Context, c client.Client, pod *corev1.Pod) error {
	now := time.Now().UTC().Format(time.RFC3339)
	patch := fmt.Appendf(nil, `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`, now)
	return c.Status().Patch(ctx, pod, client.RawPatch("application/strategic-merge-patch+json", patch))
}

// node makes a ready node with room for cpus pods of one CPU.
func node(t testing.TB, c client.Client, name, pool string, cpus int) *corev1.Node {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
	require.NoError(t, c.Create(t.Context(), n))
	t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), n) })
	size := corev1.ResourceList{
		"cpu": *resource.NewQuantity(int64(cpus), resource.DecimalSI), "memory": resource.MustParse("64Gi"), "pods": resource.MustParse("110"),
	}
	before := n.DeepCopy()
	n.Status = corev1.NodeStatus{
		Capacity: size, Allocatable: size,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
		Images:     []corev1.ContainerImage{{Names: []string{"registry.example/eks/pause:3.10"}, SizeBytes: 300 << 10}},
	}
	require.NoError(t, c.Status().Patch(t.Context(), n, client.MergeFrom(before)))
	// The admission plugin TaintNodesByCondition adds not-ready, and nothing here takes it off.
	require.NoError(t, c.Patch(t.Context(), n, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"taints":null}}`))))
	return n
}

// warmNode says that a node has completed a rule and holds images.
func warmNode(t testing.TB, c client.Client, n *corev1.Node, rule string, images ...string) {
	t.Helper()
	record := readiness.Record{Node: n.UID, Rules: map[types.UID]readiness.Entry{"rule-uid": {Name: rule, State: readiness.EntryDone}}}
	text, err := record.Encode()
	require.NoError(t, err)
	var inventory prepull.Inventory
	for _, image := range images {
		inventory.Warm = append(inventory.Warm, prepull.InventoryImage{Digest: "0123456789abcdef", Name: image})
	}
	listed, err := inventory.Encode()
	require.NoError(t, err)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		readiness.AnnotationReadiness: text, readiness.AnnotationImages: listed,
	}}})
	require.NoError(t, err)
	require.NoError(t, c.Patch(t.Context(), n, client.RawPatch("application/merge-patch+json", patch)))
}

// warmPool is a pool of one CPU replicas on the nodes labelled pool=<namespace>.
func warmPool(t testing.TB, c client.Client, ns string, change func(*v1alpha1.WarmPoolSpec)) *v1alpha1.WarmPool {
	t.Helper()
	return warmPoolNamed(t, c, ns, "web", change)
}

func warmPoolNamed(t testing.TB, c client.Client, ns, name string, change func(*v1alpha1.WarmPoolSpec)) *v1alpha1.WarmPool {
	t.Helper()
	wp := &v1alpha1.WarmPool{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: v1alpha1.WarmPoolSpec{
		Max: 20, Shape: v1alpha1.WarmPoolShape{Resources: corev1.ResourceList{"cpu": resource.MustParse("1")}},
		Template: v1alpha1.WarmPoolTemplate{NodeSelector: map[string]string{"pool": ns}},
	}}
	if change != nil {
		change(&wp.Spec)
	}
	require.NoError(t, c.Create(t.Context(), wp))
	return wp
}

// workload makes a Deployment of pods of one CPU.
func workload(t testing.TB, c client.Client, ns, name string, replicas int32, change func(*corev1.PodSpec)) *appsv1.Deployment {
	t.Helper()
	labels := map[string]string{"app": name}
	grace := int64(0)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"pool": ns}, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:v1", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("1")},
			}}},
		}},
	}}
	if change != nil {
		change(&d.Spec.Template.Spec)
	}
	require.NoError(t, c.Create(t.Context(), d))
	return d
}

func scale(t testing.TB, c client.Client, object client.Object, field string, n int) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{%q:%d}}`, field, n)
	require.NoError(t, c.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", patch)))
}

// eventually waits until the pool's object satisfies a condition and returns it.
func eventually(t testing.TB, c client.Client, wp *v1alpha1.WarmPool, what string, holds func(*v1alpha1.WarmPool) bool) *v1alpha1.WarmPool {
	t.Helper()
	got := &v1alpha1.WarmPool{}
	require.Eventually(t, func() bool {
		return c.Get(t.Context(), client.ObjectKeyFromObject(wp), got) == nil && holds(got)
	}, patience, tick, "%s; last seen: %s", what, lazy(func() string { return fmt.Sprintf("%+v", got.Status) }))
	return got
}

// lazy is formatted when it is printed, not when it is passed.
type lazy func() string

func (l lazy) String() string { return l() }

func ready(n int32) func(*v1alpha1.WarmPool) bool {
	return func(wp *v1alpha1.WarmPool) bool { return wp.Status.Desired == n && wp.Status.Ready == n }
}

func conditionIs(kind string, status metav1.ConditionStatus, reason string) func(*v1alpha1.WarmPool) bool {
	return func(wp *v1alpha1.WarmPool) bool {
		for _, c := range wp.Status.Conditions {
			if c.Type == kind && c.Status == status && c.Reason == reason && c.ObservedGeneration == wp.Generation {
				return true
			}
		}
		return false
	}
}

func pods(t testing.TB, c client.Client, ns string, labels map[string]string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	require.NoError(t, c.List(t.Context(), &list, client.InNamespace(ns), client.MatchingLabels(labels)))
	return list.Items
}
