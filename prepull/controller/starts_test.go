package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/prepull/warm"
)

func startedPod(uid string, images ...string) *corev1.Pod {
	at := metav1.NewTime(noon)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid"}}
	pod.UID, pod.Spec.NodeName, pod.Status.StartTime = pod.UID+"-"+pod.UID, "n1", &at
	for _, img := range images {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: img, Image: img})
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: img, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		})
	}
	pod.Name = uid
	return pod
}

func TestStartsAreCountedOnce(t *testing.T) {
	s := newStarts()
	pod := startedPod("a", "web:v1", "log:v1")
	pod.Status.ContainerStatuses[1].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}
	pod.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "init:v1"}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	require.Equal(t, []start{
		{node: "n1", image: "docker.io/library/init:v1", at: noon}, {node: "n1", image: "docker.io/library/web:v1", at: noon},
	}, s.observe(stripPod(pod), noon.Add(time.Hour)))
	require.Empty(t, s.observe(stripPod(stripPod(pod)), noon), "a change of a pod is no start")
	pod.Status.ContainerStatuses[1] = corev1.ContainerStatus{Name: "log:v1", RestartCount: 3, State: pod.Status.ContainerStatuses[1].State}
	require.Len(t, s.observe(stripPod(pod), noon), 1, "a container that came later")
	s.keep(nil)
	require.Len(t, s.observe(stripPod(pod), noon), 3, "what is gone is forgotten")
}

func TestStartsOfHostilePods(t *testing.T) {
	s := newStarts()
	future := startedPod("a", "web:v1", "NOT AN IMAGE")
	at := metav1.NewTime(noon.Add(1000 * time.Hour))
	future.Status.StartTime = &at
	got := s.observe(stripPod(stripPod(future)), noon)
	require.Equal(t, []start{{node: "n1", image: "docker.io/library/web:v1", at: noon}}, got, "the future is now")
	unscheduled := startedPod("b", "web:v1")
	unscheduled.Spec.NodeName = ""
	require.Empty(t, s.observe(unscheduled, noon))
}

// A model that comes as a volume is most of what a pod pulls.
func TestImageVolumesAreLearned(t *testing.T) {
	s := newStarts()
	pod := startedPod("a", "server:v1")
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "model", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "registry.example/model:70b"}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	waiting := pod.DeepCopy()
	waiting.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}
	require.Empty(t, s.observe(stripPod(waiting), noon), "it may still be pulled")
	require.Equal(t, []start{
		{node: "n1", image: "registry.example/model:70b", at: noon}, {node: "n1", image: "docker.io/library/server:v1", at: noon},
	}, s.observe(stripPod(pod), noon))
	require.Empty(t, s.observe(stripPod(stripPod(pod)), noon))
	require.Equal(t, []warm.Want{
		{Name: "docker.io/library/server:v1"}, {Name: "registry.example/model:70b"},
	}, imagesOf(pod), "a pod whose model is cold does not start warm")
}
