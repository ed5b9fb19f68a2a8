package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/prepull"
)

// starts recognises container starts in the changes of pods, each once. The caller guards it.
type starts struct {
	// counted holds the containers of living pods whose start was seen.
	counted map[types.UID]map[string]bool
}

// start is the first start of one container of a pod, or the first mount of an image.
type start struct {
	node, image string
	at          time.Time
}

func newStarts() *starts {
	return &starts{counted: map[types.UID]map[string]bool{}}
}

// stripPod keeps what observe reads: of the 5 to 20 KB of a real pod, a few hundred bytes.
func stripPod(in *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: in.Name, Namespace: in.Namespace, UID: in.UID, ResourceVersion: in.ResourceVersion,
	}}
	out.Spec.NodeName = in.Spec.NodeName
	out.Status.StartTime = in.Status.StartTime
	out.Spec.InitContainers, out.Status.InitContainerStatuses = stripContainers(in.Spec.InitContainers, in.Status.InitContainerStatuses)
	out.Spec.Containers, out.Status.ContainerStatuses = stripContainers(in.Spec.Containers, in.Status.ContainerStatuses)
	if len(out.Spec.InitContainers)+len(out.Spec.Containers) == 0 {
		return out
	}
	// A container starts when all volumes are mounted, those that are images too.
	for i := range in.Spec.Volumes {
		if v := &in.Spec.Volumes[i]; v.Image != nil && v.Image.Reference != "" {
			source := corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: v.Image.Reference}}
			out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: v.Name, VolumeSource: source})
		}
	}
	return out
}

func stripContainers(specs []corev1.Container, statuses []corev1.ContainerStatus) ([]corev1.Container, []corev1.ContainerStatus) {
	started := map[string]bool{}
	for i := range statuses {
		if s := &statuses[i]; s.State.Running != nil || s.State.Terminated != nil || s.RestartCount > 0 {
			started[s.Name] = true
		}
	}
	var keep []corev1.Container
	var states []corev1.ContainerStatus
	for i := range specs {
		if started[specs[i].Name] {
			keep = append(keep, corev1.Container{Name: specs[i].Name, Image: specs[i].Image})
			// Stripped again, it is still one that has started.
			state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			states = append(states, corev1.ContainerStatus{Name: specs[i].Name, State: state})
		}
	}
	return keep, states
}

// observe returns the containers of the pod that have started since it was last observed, and the images that it mounts as
// volumes. The pod is a stripped one. The time is that of the pod,
// which never changes; one in the future is the lie of a node's clock and becomes now.
func (s *starts) observe(pod *corev1.Pod, now time.Time) []start {
	if pod.Spec.NodeName == "" || pod.Status.StartTime == nil {
		return nil
	}
	at := pod.Status.StartTime.Time
	if at.After(now) {
		at = now
	}
	var out []start
	add := func(key, image string) {
		if s.counted[pod.UID][key] {
			return
		}
		if s.counted[pod.UID] == nil {
			s.counted[pod.UID] = map[string]bool{}
		}
		s.counted[pod.UID][key] = true
		if name, err := prepull.Normalize(image); err == nil {
			out = append(out, start{node: pod.Spec.NodeName, image: name, at: at})
		}
	}
	for i := range pod.Spec.Volumes {
		// No container's name has a slash.
		if v := &pod.Spec.Volumes[i]; v.Image != nil {
			add("volumes/"+v.Name, v.Image.Reference)
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			add(list[i].Name, list[i].Image)
		}
	}
	return out
}

// keep forgets all pods but these: a watch that was lost may have missed deletions.
func (s *starts) keep(pods []*corev1.Pod) {
	living := make(map[types.UID]bool, len(pods))
	for _, pod := range pods {
		living[pod.UID] = true
	}
	for uid := range s.counted {
		if !living[uid] {
			delete(s.counted, uid)
		}
	}
}
