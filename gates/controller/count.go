package controller

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
)

// count counts the pods that wait for a gate, and says when the oldest of them was created.
func (w *waitlist) count(gate string) (waiting int32, oldest time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pod := range w.byGate[gate] {
		if !pod.has(gate) {
			continue
		}
		waiting++
		if oldest.IsZero() || pod.Created.Before(oldest) {
			oldest = pod.Created
		}
	}
	return waiting, oldest
}

// stillWaiting says whether this very pod still has a gate.
func (w *waitlist) stillWaiting(key types.NamespacedName, uid types.UID, gate string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	pod := w.pods[key]
	return pod != nil && pod.UID == uid && pod.has(gate)
}

// obstacle says what keeps a policy from ever being satisfied.
func (w *waitlist) obstacle(policy *gates.Policy, served func(string) bool) (gates.Obstacle, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return policy.Obstacle(w.fleet, served)
}

// unreadable says what the controller cannot read that a pod with the gate waits for; "" when there is nothing.
func (w *waitlist) unreadable(gate string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := ""
	for _, pod := range w.byGate[gate] {
		for _, u := range pod.missing[gate] {
			if !u.Unknown || u.Problem == "" || u.Dependency.Kind == gates.KindFleet {
				continue
			}
			if text := u.String(); first == "" || text < first {
				first = text
			}
		}
	}
	return first
}
