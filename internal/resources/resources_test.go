package resources

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// A pod may ask for any number that the API takes. Whatever it asks for, it never makes room.
func TestAmountsOfAnySizeAddUp(t *testing.T) {
	node := New(list("4", "8Gi"))
	shape := New(list("1", "2Gi"))
	require.EqualValues(t, 4, Count(shape, node, nil))
	for _, memory := range []string{"9223372036854775807", "8E", "1e30", "9223372036854775807m", "4611686018427387904"} {
		for _, cpu := range []string{"1", "9223372036854775807", "9223372036854775", "9223372036854776", "1e30"} {
			huge, used := New(list(cpu, memory)), List{}
			for range 1000 {
				used.Add(huge, 1)
				require.False(t, Fit(shape, node, used), "cpu %s, memory %s", cpu, memory)
				require.Zero(t, Count(shape, node, used), "cpu %s, memory %s", cpu, memory)
			}
			require.False(t, Fit(huge, node, nil))
			require.Zero(t, Count(huge, node, nil))
			used.Add(huge, -1000)
			require.EqualValues(t, 4, Count(shape, node, used), "and when they are gone the room is back")
		}
	}
}

func TestCountAndFitAgree(t *testing.T) {
	node := List{"cpu": 4000, "memory": 100, "pods": 10}
	for _, request := range []List{{"cpu": 1000}, {"cpu": 1500, "memory": 60}, {"nvidia.com/gpu": 1}, {"cpu": 4001}, {"memory": 100}} {
		used := List{}
		count := Count(request, node, nil)
		for range count {
			require.True(t, Fit(request, node, used), "%v", request)
			used.Add(request, 1)
		}
		require.False(t, Fit(request, node, used), "%v", request)
	}
	require.Zero(t, Count(List{"cpu": 0}, node, nil), "a request of nothing has no count")
	require.Less(t, int64(Count(List{"cpu": 1}, List{"cpu": math.MaxInt64}, nil)), int64(math.MaxInt32))
}

func TestRequestsHaveASlot(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("500m", "1Gi")}}}}}
	require.Equal(t, List{"cpu": 500, "memory": 1 << 30, "pods": 1}, Requests(pod))
}
