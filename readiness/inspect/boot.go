package inspect

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/agent/timeline"
	"headstart.dev/readiness"
)

// What the cluster adds to a node's own boot.
const (
	// Released is the moment at which a rule let the node go.
	Released timeline.Name = "released"
	// PodStart lasts from when a pod was scheduled until it was Ready.
	PodStart timeline.Name = "pod"
)

const (
	// bootPods is how long after the end of a boot a pod still counts as started by it.
	bootPods = 5 * time.Minute
	// maxPods keeps the drawing readable.
	maxPods = 30
)

// AddReleases adds the moments at which rules let the node go, as the controller has recorded them.
func AddReleases(boot *timeline.Timeline, node *corev1.Node) {
	record, err := readiness.DecodeRecord(node)
	if err != nil {
		return
	}
	for _, entry := range record.Rules {
		if entry.At == 0 || entry.State == readiness.EntryHeld {
			continue
		}
		at := time.Unix(entry.At, 0)
		if within(boot, at) {
			boot.Add(timeline.Phase{Name: Released, Detail: clean(entry.Name), Start: at, End: at})
		}
	}
}

// AddPods adds the pods that the boot started, first ones first, at most thirty. Times of the API server have whole
// seconds.
func AddPods(boot *timeline.Timeline, pods []corev1.Pod) {
	var phases []timeline.Phase
	for i := range pods {
		pod := &pods[i]
		phase := timeline.Phase{Name: PodStart, Detail: clean(pod.Namespace + "/" + pod.Name)}
		for _, c := range pod.Status.Conditions {
			switch {
			case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue:
				phase.Start = c.LastTransitionTime.Time
			case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
				phase.End = c.LastTransitionTime.Time
			}
		}
		if phase.Start.IsZero() || !within(boot, phase.Start) || !phase.End.IsZero() && phase.End.Before(phase.Start) {
			continue
		}
		phases = append(phases, phase)
	}
	slices.SortStableFunc(phases, func(a, b timeline.Phase) int { return a.Start.Compare(b.Start) })
	for _, phase := range phases[:min(len(phases), maxPods)] {
		boot.Add(phase)
	}
}

func within(boot *timeline.Timeline, at time.Time) bool {
	zero := boot.Zero()
	return !zero.IsZero() && !at.Before(zero.Truncate(time.Second)) && at.Before(boot.Last().Add(bootPods))
}
