package controller

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"headstart.dev/prepull"
	"headstart.dev/prepull/warm"
)

func startingPod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: name, UID: types.UID(name)},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app", Image: "web:v1"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
}

func TestPodStartsAreMeasuredFromBindingToRunning(t *testing.T) {
	client := fake.NewClientset()
	reg := prometheus.NewPedanticRegistry()
	var fleet warm.Index
	web := []prepull.InventoryImage{{Name: "docker.io/library/web:v1", Digest: "0123456789abcdef"}}
	fleet.Set("warm", prepull.Inventory{Warm: web})
	fleet.Set("lazy", prepull.Inventory{Lazy: web})
	s, err := newPodStarts(reg, client, fleet.Has)
	require.NoError(t, err)
	now := time.Now()
	s.keep([]*corev1.Pod{startingPod("before", "warm")})
	fates := map[string]corev1.PodPhase{"runs": corev1.PodRunning, "cold": corev1.PodRunning, "lazy": corev1.PodRunning, "fails": corev1.PodFailed, "before": corev1.PodRunning}
	for name, phase := range fates {
		node := "warm"
		if name == "cold" || name == "lazy" {
			node = name
		}
		pod := startingPod(name, node)
		s.seen(pod, now)
		// What a pod's own changes say does not begin it anew.
		s.seen(pod, now.Add(time.Second))
		after := pod.DeepCopy()
		after.Status.Phase = phase
		_, err := client.CoreV1().Pods("prod").Create(t.Context(), after, metav1.CreateOptions{})
		require.NoError(t, err)
		s.leaves(pod, now.Add(2*time.Second))
	}
	gone := startingPod("gone", "warm")
	s.seen(gone, now)
	s.leaves(gone, now.Add(2*time.Second))
	deleted := startingPod("deleted", "warm")
	s.seen(deleted, now)
	deleted.DeletionTimestamp = &metav1.Time{Time: now}
	s.leaves(deleted, now.Add(2*time.Second))

	require.Len(t, s.left, 5, "runs, cold, lazy, fails and gone; neither the one bound before nor the deleted one")
	for len(s.left) > 0 {
		if left := <-s.left; s.runs(t.Context(), left) {
			require.Equal(t, 2*time.Second, left.took)
			require.Equal(t, left.key.Name == "runs", left.warm, left.key.Name)
			require.Contains(t, []string{"runs", "cold", "lazy"}, left.key.Name)
		}
	}
	require.Empty(t, s.bound)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, 2, testutil.CollectAndCount(reg, "headstart_pod_start_seconds"))
}
