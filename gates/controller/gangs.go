package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"

	"headstart.dev/gates"
)

// gangState is what is remembered of a gang while members of it wait.
type gangState struct {
	// known says that the API server was asked whether a member is past the gate. It is asked once, when the first member
	// is seen: after a crash that is how a half-lifted gang is found, with no record to keep.
	known bool
	past  bool
	// released says that the lift of all members was decided; none of them is judged again.
	released bool
}

// gang gathers what is known of a gang. The caller holds the lock.
func (w *waitlist) gang(name gates.Dependency, gate string) gates.Gang {
	state := w.gangs[name]
	out := gates.Gang{Past: state.past, Released: state.released}
	for _, member := range w.waiters[name] {
		if member.has(gate) {
			out.Waiting = append(out.Waiting, member.Pod)
		}
	}
	return out
}

// gangPast takes note that a member of a gang is past its gate, or that none is.
func (w *waitlist) gangPast(name gates.Dependency, past bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state := w.gangs[name]; state != nil {
		state.known, state.past = true, state.past || past
	}
}

// leftGate takes note that a pod lost a gate of a gang, by whoever's hand: the others follow. The caller holds the lock.
func (w *waitlist) leftGate(old *waiting, now *gates.Pod) []types.NamespacedName {
	var wake []types.NamespacedName
	for _, gate := range old.Gates {
		policy := w.policies[gate]
		if policy == nil || hasGate(now, gate) {
			continue
		}
		if name, ok := policy.Gang(old.Pod); ok && w.gangs[name] != nil {
			w.gangs[name].known, w.gangs[name].past = true, true
			for key := range w.waiters[name] {
				wake = append(wake, key)
			}
		}
	}
	return wake
}

// askAgain takes note that a member of a gang went out of sight with its gate on: a watch that was interrupted may have
// missed that it lost the gate and was bound. The caller holds the lock.
func (w *waitlist) askAgain(gone *waiting) []types.NamespacedName {
	var wake []types.NamespacedName
	for _, gate := range gone.Gates {
		policy := w.policies[gate]
		if policy == nil {
			continue
		}
		if name, ok := policy.Gang(gone.Pod); ok && w.gangs[name] != nil {
			w.gangs[name].known = false
			for key := range w.waiters[name] {
				wake = append(wake, key)
			}
		}
	}
	return wake
}

// memberPast asks the API server whether a member of the gang is beyond the gate: it lives, or has succeeded under the
// same controller, and does not have the gate.
func memberPast(ctx context.Context, clients kubernetes.Interface, name gates.Dependency, gate string, owner types.UID) (bool, error) {
	if gates.Nameless(name) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	var options metav1.ListOptions
	if selector, ok := gates.GangSelector(name); ok {
		options.LabelSelector = labels.Set(selector).String()
	}
	members, err := clients.CoreV1().Pods(name.Namespace).List(ctx, options)
	if err != nil {
		return false, fmt.Errorf("list members of gang %s: %w", name, err)
	}
	for i := range members.Items {
		if pod := &members.Items[i]; gates.InGang(name, pod) && isPast(pod, gate, owner) {
			return true, nil
		}
	}
	return false, nil
}

func isPast(pod *corev1.Pod, gate string, owner types.UID) bool {
	for _, g := range pod.Spec.SchedulingGates {
		if g.Name == gate {
			return false
		}
	}
	controller := metav1.GetControllerOfNoCopy(pod)
	switch {
	case pod.DeletionTimestamp != nil, pod.Status.Phase == corev1.PodFailed:
		return false
	case pod.Status.Phase == corev1.PodSucceeded:
		return controller != nil && controller.UID == owner && owner != ""
	default:
		return true
	}
}

func hasGate(pod *gates.Pod, gate string) bool {
	return slices.Contains(pod.Gates, gate)
}

// gangRetry is when the API server is asked about a gang again after it did not answer. Meanwhile the deadline runs.
const gangRetry = time.Second

// askAboutGangs finds out what decide could not know, and decides again.
func (r *reconciler) askAboutGangs(ctx context.Context, d decision) (decision, bool) {
	for _, q := range d.unknown {
		past, err := memberPast(ctx, r.clients, q.gang, q.gate, d.pod.Owner)
		if err != nil {
			ctrl.LoggerFrom(ctx).V(1).Info("gang not known", "gate", q.gate, "reason", err.Error())
			d.lookAgain(time.Now().Add(gangRetry))
			return d, true
		}
		r.waitlist.gangPast(q.gang, past)
	}
	return r.waitlist.decide(d.pod.Key(), time.Now())
}
