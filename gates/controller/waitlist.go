package controller

import (
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// waitlist knows which pod waits for what. Its methods take facts as they arrive and return the pods that want another
// look; decide takes that look. It is safe for concurrent use.
type waitlist struct {
	exists func(gates.Dependency) bool
	// need is told the kind of each dependency that pods wait for.
	need func(gates.Kind)
	// fleetReady says whether nodes and bound pods are known; before that no room is given away.
	fleetReady func() bool

	mu       sync.Mutex
	policies map[string]*gates.Policy // in force, by gate name
	pods     map[types.NamespacedName]*waiting
	byGate   map[string]map[types.NamespacedName]*waiting
	waiters  map[gates.Dependency]map[types.NamespacedName]*waiting
	fleet    *gates.Fleet
}

// waiting is a pod with at least one gate.
type waiting struct {
	*gates.Pod
	// dependencies are those of all its gates that a policy names.
	dependencies []gates.Dependency
	// lifted gates were removed by us; the watch has not shown it yet.
	lifted []string
}

func newWaitlist() *waitlist {
	return &waitlist{
		policies: map[string]*gates.Policy{}, pods: map[types.NamespacedName]*waiting{},
		byGate: map[string]map[types.NamespacedName]*waiting{}, waiters: map[gates.Dependency]map[types.NamespacedName]*waiting{},
		fleet: gates.NewFleet(),
	}
}

// setPod takes an unscheduled pod as it is now.
func (w *waitlist) setPod(pod *gates.Pod, now time.Time) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.pods[pod.Key()]
	if old != nil && old.UID != pod.UID {
		w.remove(old)
		w.fleet.Release(old.UID)
		old = nil
	}
	if len(pod.Gates) == 0 || pod.Deleting {
		if old != nil {
			w.remove(old)
		}
		if pod.Deleting {
			return w.wake(w.fleet.Release(pod.UID))
		}
		if !w.policyless() {
			w.fleet.Adopt(pod, now)
		}
		return nil
	}
	next := &waiting{Pod: pod}
	if old != nil {
		next.lifted = slices.DeleteFunc(old.lifted, func(gate string) bool { return !slices.Contains(pod.Gates, gate) })
		w.remove(old)
	}
	w.insert(next)
	return []types.NamespacedName{pod.Key()}
}

// deletePod takes note that a pod is no longer unscheduled: it is bound, or gone. A bound pod's room is accounted for
// by bindPod, in whichever order the two come.
func (w *waitlist) deletePod(pod *gates.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.pods[pod.Key()]; old != nil && old.UID == pod.UID {
		w.remove(old)
	}
}

func (w *waitlist) insert(pod *waiting) {
	w.pods[pod.Key()] = pod
	for _, gate := range pod.Gates {
		put(w.byGate, gate, pod)
		if policy := w.policies[gate]; policy != nil {
			pod.dependencies = append(pod.dependencies, policy.Dependencies(pod.Pod)...)
		}
	}
	for _, dependency := range pod.dependencies {
		put(w.waiters, dependency, pod)
		w.need(dependency.Kind)
	}
}

func (w *waitlist) remove(pod *waiting) {
	delete(w.pods, pod.Key())
	for _, gate := range pod.Gates {
		take(w.byGate, gate, pod)
	}
	for _, dependency := range pod.dependencies {
		take(w.waiters, dependency, pod)
	}
}

func put[K comparable](index map[K]map[types.NamespacedName]*waiting, key K, pod *waiting) {
	if index[key] == nil {
		index[key] = map[types.NamespacedName]*waiting{}
	}
	index[key][pod.Key()] = pod
}

func take[K comparable](index map[K]map[types.NamespacedName]*waiting, key K, pod *waiting) {
	if delete(index[key], pod.Key()); len(index[key]) == 0 {
		delete(index, key)
	}
}

// setPolicies replaces the policies in force. It returns the pods of the gates whose policy changed.
func (w *waitlist) setPolicies(policies map[string]*gates.Policy) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := map[string]bool{}
	for gate, policy := range policies {
		if old := w.policies[gate]; old == nil || old.UID != policy.UID || old.Generation != policy.Generation {
			changed[gate] = true
		}
	}
	for gate := range w.policies {
		if policies[gate] == nil {
			changed[gate] = true
		}
	}
	w.policies = policies
	var out []types.NamespacedName
	for gate := range changed {
		for _, pod := range w.byGate[gate] {
			out = append(out, pod.Key())
		}
	}
	for _, key := range out {
		pod := w.pods[key]
		w.remove(pod)
		pod.dependencies = nil
		w.insert(pod)
	}
	return out
}

func (w *waitlist) policyless() bool { return len(w.policies) == 0 }

// arrived returns the pods that wait for a thing that has come to be.
func (w *waitlist) arrived(dependency gates.Dependency) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake([]gates.Dependency{dependency})
}

// everyone returns all pods with a gate that a policy names.
func (w *waitlist) everyone() []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []types.NamespacedName
	for gate := range w.policies {
		for key := range w.byGate[gate] {
			out = append(out, key)
		}
	}
	return out
}

func (w *waitlist) setNode(node *corev1.Node) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake(w.fleet.SetNode(node))
}

func (w *waitlist) deleteNode(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fleet.DeleteNode(name)
}

func (w *waitlist) bindPod(pod *boundPod) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake(w.fleet.Bind(pod.uid, pod.node, pod.requests))
}

func (w *waitlist) unbindPod(pod *boundPod) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake(w.fleet.Forget(pod.uid))
}

// expire ends reservations. next is when to call again, zero when there is none.
func (w *waitlist) expire(now time.Time) (wake []types.NamespacedName, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	freed, next := w.fleet.Expire(now)
	return w.wake(freed), next
}

// wake lists the pods that wait for any of the dependencies. Pods that wait for an image are left to sleep when no warm
// node has room for them: ten thousand pods need not look at each node that frees one place.
func (w *waitlist) wake(dependencies []gates.Dependency) []types.NamespacedName {
	var out []types.NamespacedName
	for _, dependency := range dependencies {
		for key, pod := range w.waiters[dependency] {
			if dependency.Kind != gates.KindImage || w.fleet.HasRoom(pod.Shape) {
				out = append(out, key)
			}
		}
	}
	return out
}

// gateDecision is what is to be done with one gate of a pod.
type gateDecision struct {
	policy  *gates.Policy
	verdict gates.Verdict
}

// decision is what is to be done with a pod.
type decision struct {
	pod *gates.Pod
	// lift are the gates to remove now; wait those that stay.
	lift, wait []gateDecision
	// steer is set when the last gate goes and there is room on a warm node.
	steer *corev1.PreferredSchedulingTerm
	// again is when to look again although nothing happens: the next deadline. Zero: never.
	again time.Time
}

// decide looks at a pod. It reserves room for a pod that is to be steered; undo gives it back.
func (w *waitlist) decide(key types.NamespacedName, now time.Time) (d decision, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pod := w.pods[key]
	if pod == nil {
		return d, false
	}
	d.pod = pod.Pod
	facts := gates.Facts{Exists: w.exists, Fleet: w.fleet}
	left, steered := 0, false
	for _, gate := range pod.Gates {
		policy := w.policies[gate]
		if slices.Contains(pod.lifted, gate) {
			continue
		}
		if policy == nil || (policy.NeedsFleet() && !w.fleetReady()) {
			left++
			continue
		}
		g := gateDecision{policy: policy, verdict: policy.Evaluate(pod.Pod, facts, now)}
		if g.verdict.Outcome == gates.Wait {
			left++
			d.wait = append(d.wait, g)
			if !policy.Hold && (d.again.IsZero() || g.verdict.Deadline.Before(d.again)) {
				d.again = g.verdict.Deadline
			}
			continue
		}
		d.lift = append(d.lift, g)
		steered = steered || (g.verdict.Outcome == gates.Lift && policy.Placement == v1alpha1.PlacementPreferred)
	}
	if left == 0 && steered && len(d.lift) > 0 {
		if term, ok := w.fleet.Reserve(pod.Pod, now); ok {
			d.steer = &term
		}
	}
	for _, g := range d.lift {
		pod.lifted = append(pod.lifted, g.policy.GateName)
	}
	return d, true
}

// undo takes back a decision that was not carried out.
func (w *waitlist) undo(d decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.steer != nil {
		w.fleet.Release(d.pod.UID)
	}
	pod := w.pods[d.pod.Key()]
	if pod == nil || pod.UID != d.pod.UID {
		return
	}
	for _, g := range d.lift {
		pod.lifted = slices.DeleteFunc(pod.lifted, func(gate string) bool { return gate == g.policy.GateName })
	}
}
