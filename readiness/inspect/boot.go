package inspect

import (
	"cmp"
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
	// releaseWithin is how long after the rest of a boot a release still belongs to it: longer than the time-out of a rule.
	releaseWithin = 15 * time.Minute
	// leastWindow is what is shown after the end of the shortest boot.
	leastWindow = 10 * time.Second
	// maxPods keeps the drawing readable.
	maxPods = 30
)

// AddReleases adds the moments at which rules let the node go, as the controller has recorded them.
func AddReleases(boot *timeline.Timeline, node *corev1.Node) {
	record, err := readiness.DecodeRecord(node)
	if err != nil {
		return
	}
	until := boot.Last().Add(releaseWithin)
	for _, entry := range record.Rules {
		if entry.At == 0 || entry.State == readiness.EntryHeld {
			continue
		}
		at := time.Unix(entry.At, 0)
		if within(boot, at, until) {
			boot.Add(timeline.Phase{Name: Released, Detail: clean(entry.Name), Start: at, End: at})
		}
	}
}

// Window is how much is shown after a boot: half of it, so that what came later never takes most of the drawing.
func Window(boot *timeline.Timeline) time.Duration {
	return max(boot.Last().Sub(boot.Zero())/2, leastWindow)
}

// AddPods adds the pods that were scheduled from the boot on until the window after it ends, first ones first, at most
// thirty, and ends the drawing there. It says how many more came later. Times of the API server have whole seconds.
func AddPods(boot *timeline.Timeline, pods []corev1.Pod, window time.Duration) (more int) {
	until := boot.Last().Add(window)
	var phases []timeline.Phase
	for i := range pods {
		phase := podPhase(&pods[i])
		switch {
		case phase.Start.IsZero() || !phase.End.IsZero() && phase.End.Before(phase.Start):
		case within(boot, phase.Start, until):
			phases = append(phases, phase)
		case phase.Start.After(until):
			more++
		}
	}
	slices.SortStableFunc(phases, func(a, b timeline.Phase) int { return a.Start.Compare(b.Start) })
	for _, phase := range phases[:min(len(phases), maxPods)] {
		boot.Add(phase)
	}
	boot.Until = until
	return more + max(len(phases)-maxPods, 0)
}

// podPhase is the start of a pod: until it was Ready, or until it ended, or with what keeps it.
func podPhase(pod *corev1.Pod) timeline.Phase {
	phase := timeline.Phase{Name: PodStart, Detail: clean(pod.Namespace + "/" + pod.Name)}
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue:
			phase.Start = c.LastTransitionTime.Time
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
			phase.End = c.LastTransitionTime.Time
		}
	}
	if phase.End.IsZero() {
		phase.End, phase.State = podEnd(pod)
	}
	return phase
}

// podEnd is when the last container of a pod that is not Ready ended, and what keeps it from being Ready: the reason why a
// container waits, or how far it is.
func podEnd(pod *corev1.Pod) (time.Time, string) {
	if pod.Status.Phase == corev1.PodFailed && len(pod.Status.ContainerStatuses) == 0 {
		return time.Time{}, clean(cmp.Or(pod.Status.Reason, "Failed"))
	}
	var end time.Time
	running := len(pod.Status.ContainerStatuses) > 0
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			return time.Time{}, clean(w.Reason)
		}
		running = running && c.State.Waiting == nil
		if ended := c.State.Terminated; ended != nil && ended.FinishedAt.After(end) {
			end = ended.FinishedAt.Time
		}
	}
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		return end, "Failed"
	case pod.Status.Phase == corev1.PodSucceeded:
		return end, ""
	case running:
		return time.Time{}, "not Ready"
	}
	return time.Time{}, "starting"
}

func within(boot *timeline.Timeline, at, until time.Time) bool {
	zero := boot.Zero()
	return !zero.IsZero() && !at.Before(zero.Truncate(time.Second)) && !at.After(until)
}
