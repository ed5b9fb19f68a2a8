package inspect_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/agent/timeline"
	"headstart.dev/readiness/inspect"
)

// scheduled is a pod that was scheduled so long after the boot began.
func scheduled(name string, after time.Duration, change func(*corev1.PodStatus)) corev1.Pod {
	pod := gatedPod()
	pod.Name = name
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "True", LastTransitionTime: metav1.NewTime(now.Add(after))}}
	if change != nil {
		change(&pod.Status)
	}
	return *pod
}

func tenSeconds() timeline.Timeline {
	boot := timeline.Timeline{}
	boot.Add(timeline.Phase{Name: timeline.Kernel, Start: now, End: now.Add(5 * time.Second)})
	boot.Add(timeline.Phase{Name: timeline.Published, Start: now.Add(10 * time.Second), End: now.Add(10 * time.Second)})
	return boot
}

func TestAPodThatDoesNotRunIsNotRunning(t *testing.T) {
	waiting := func(reason string) func(*corev1.PodStatus) {
		return func(s *corev1.PodStatus) {
			s.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
		}
	}
	ended := func(phase corev1.PodPhase) func(*corev1.PodStatus) {
		return func(s *corev1.PodStatus) {
			s.Phase = phase
			s.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(now.Add(14 * time.Second))}}}}
		}
	}
	for name, tc := range map[string]struct {
		change func(*corev1.PodStatus)
		state  string
		took   time.Duration
	}{
		"it cannot pull":         {waiting("ImagePullBackOff"), "ImagePullBackOff", 0},
		"it crashes":             {waiting("CrashLoopBackOff"), "CrashLoopBackOff", 0},
		"a reason to be careful": {waiting("\x1b[2Jgone"), " [2Jgone", 0},
		"its container is made":  {waiting("ContainerCreating"), "starting", 0},
		"nothing is known of it": {nil, "starting", 0},
		"it runs, and is not yet": {func(s *corev1.PodStatus) {
			s.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}, "not Ready", 0},
		"it is done":     {ended(corev1.PodSucceeded), "", 4 * time.Second},
		"it failed":      {ended(corev1.PodFailed), "Failed", 4 * time.Second},
		"it was evicted": {func(s *corev1.PodStatus) { s.Phase, s.Reason = corev1.PodFailed, "Evicted" }, "Evicted", 0},
		"its first container cannot pull": {func(s *corev1.PodStatus) {
			waiting("ErrImagePull")(s)
			s.InitContainerStatuses, s.ContainerStatuses = s.ContainerStatuses, nil
		}, "ErrImagePull", 0},
	} {
		t.Run(name, func(t *testing.T) {
			boot := tenSeconds()
			require.Zero(t, inspect.AddPods(&boot, []corev1.Pod{scheduled("web", 10*time.Second, tc.change)}, time.Minute))
			pod, found := boot.Find(inspect.PodStart, "shop/web")
			require.True(t, found)
			require.Equal(t, tc.state, pod.State)
			if tc.took > 0 {
				require.Equal(t, tc.took, pod.End.Sub(pod.Start))
			} else {
				require.True(t, pod.Running())
			}
			var out strings.Builder
			require.NoError(t, boot.WriteText(&out))
			require.NotContains(t, out.String(), "running")
		})
	}
}

// However many pods come later, and however long they take, most of the drawing is the boot.
func TestLaterPodsDoNotSqueezeTheBoot(t *testing.T) {
	boot := tenSeconds()
	window := inspect.Window(&boot)
	require.Equal(t, 10*time.Second, window)
	pods := []corev1.Pod{scheduled("slow", 11*time.Second, nil)}
	for range 5 {
		pods = append(pods, scheduled("late", 4*time.Minute, nil))
	}
	require.Equal(t, 5, inspect.AddPods(&boot, pods, window))
	require.Equal(t, now.Add(20*time.Second), boot.Until)

	boot = tenSeconds()
	require.Zero(t, inspect.AddPods(&boot, pods, 5*time.Minute), "who asks for more gets it")
	boot = tenSeconds()
	for range 40 {
		pods = append(pods, scheduled("many", 11*time.Second, nil))
	}
	require.Equal(t, 16, inspect.AddPods(&boot, pods, window), "5 late ones, and 11 more than fit")

	long := tenSeconds()
	long.Add(timeline.Phase{Name: timeline.Image, Start: now, End: now.Add(4 * time.Minute)})
	require.Equal(t, 2*time.Minute, inspect.Window(&long), "half of the boot")
}
