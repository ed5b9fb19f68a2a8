package controller

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
)

// waitlist knows which pod waits for what. Its methods take facts as they arrive and return the pods that want another
// look; decide takes that look. It is safe for concurrent use.
type waitlist struct {
	sources factSources

	mu sync.Mutex
	// awake is false while the first view comes in: nobody looks before it is complete, and then everybody does.
	awake    bool
	policies map[string]*gates.Policy // in force, by gate name
	pods     map[types.NamespacedName]*waiting
	byGate   map[string]map[types.NamespacedName]*waiting
	waiters  map[gates.Dependency]map[types.NamespacedName]*waiting
	gangs    map[gates.Dependency]*gangState
	fleet    *gates.Fleet
	// steered are the pods without gates that still look for a node with a label of placement Required.
	steered map[types.NamespacedName]*gates.Pod
}

// factSources are where facts other than pods and nodes come from. They are called with the waitlist locked and must
// not block.
type factSources struct {
	exists         func(gates.Dependency) gates.Existence
	object         func(gates.Dependency) (gates.Object, gates.Existence)
	readyEndpoints func(gates.Dependency) (int, gates.Existence)
	// fleetProblem says why nodes and bound pods are not known, "" where they are; before that no room is given away.
	fleetProblem func() string
	// need is told of each thing that a first pod waits for, drop of each that no pod waits for any more.
	need, drop func(gates.Dependency)
}

// waiting is a pod with at least one gate.
type waiting struct {
	*gates.Pod
	// dependencies are those of all its gates that a policy names.
	dependencies []gates.Dependency
	// lifted gates were removed by us; the watch has not shown it yet.
	lifted []string
	// woken says that the pod was told to look again and has not done so yet: a thousand nodes that turn up do not tell it
	// a thousand times.
	woken bool
	// prefers says that a gate which is gone already was lifted by a policy that steers; the last one takes that along.
	prefers bool
	clock   podClock
	// missing is what its gates waited for at the last look, by gate.
	missing map[string][]gates.Unmet
}

// podClock says since when nobody but us holds a pod.
type podClock struct {
	since  time.Time // zero until somebody has looked
	others bool      // others held it at the last look
}

// read looks at the clock. written is when the pod was last written before anybody looked.
func (c *podClock) read(others bool, written, now time.Time) gates.Clock {
	switch {
	case c.since.IsZero():
		c.since = written
	case c.others && !others:
		c.since = now
	}
	c.others = others
	return gates.Clock{Now: now, Since: c.since, Paused: others}
}

// has says whether the pod has the gate, as far as we know.
func (p *waiting) has(gate string) bool {
	return hasGate(p.Pod, gate) && !slices.Contains(p.lifted, gate)
}

func newWaitlist() *waitlist {
	return &waitlist{
		policies: map[string]*gates.Policy{}, pods: map[types.NamespacedName]*waiting{},
		byGate: map[string]map[types.NamespacedName]*waiting{}, waiters: map[gates.Dependency]map[types.NamespacedName]*waiting{},
		gangs: map[gates.Dependency]*gangState{}, fleet: gates.NewFleet(), steered: map[types.NamespacedName]*gates.Pod{},
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
	var wake []types.NamespacedName
	if old != nil && !pod.Deleting {
		wake = w.leftGate(old, pod)
	}
	if pod.Steered && !pod.Deleting {
		w.steered[pod.Key()] = pod
	} else {
		delete(w.steered, pod.Key())
	}
	if len(pod.Gates) == 0 || pod.Deleting {
		if old != nil {
			w.remove(old)
		}
		return append(wake, w.setGateless(old, pod, now)...)
	}
	next := &waiting{Pod: pod}
	if old != nil {
		next.prefers, next.clock, next.missing = old.prefers, old.clock, old.missing
		next.lifted = slices.DeleteFunc(old.lifted, func(gate string) bool { return !hasGate(pod, gate) })
		w.replace(old, next)
	} else {
		w.insert(next)
	}
	return append(wake, pod.Key())
}

// setGateless takes a pod that the scheduler looks after, or that goes. The caller holds the lock.
func (w *waitlist) setGateless(old *waiting, pod *gates.Pod, now time.Time) []types.NamespacedName {
	switch {
	case pod.Deleting:
		wake := w.wake(w.fleet.Forget(pod.UID))
		if old != nil {
			wake = append(wake, w.askAgain(old)...)
		}
		return wake
	case pod.Nominated != "":
		return w.wake(w.fleet.Nominate(pod))
	}
	wake := w.wake(w.fleet.Withdraw(pod.UID))
	if len(w.policies) > 0 {
		w.fleet.Adopt(pod, now)
	}
	return wake
}

// replace puts a newer view of a pod in the place of an older one. What it waits for is kept open in between: a watch
// must not end and begin anew because a pod was written.
func (w *waitlist) replace(old, next *waiting) {
	w.insert(next)
	for _, gate := range old.Gates {
		if !hasGate(next.Pod, gate) {
			w.takeGate(gate, old)
		}
	}
	for _, dependency := range old.dependencies {
		if !slices.Contains(next.dependencies, dependency) {
			w.takeWaiter(dependency, old)
		}
	}
}

// deletePod takes note that a pod is no longer unscheduled: it is bound, or gone. A bound pod's room is accounted for
// by bindPod, in whichever order the two come.
func (w *waitlist) deletePod(pod *gates.Pod) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.steered[pod.Key()]; now != nil && now.UID == pod.UID {
		delete(w.steered, pod.Key())
	}
	w.fleet.Unseen(pod.UID, time.Now())
	old := w.pods[pod.Key()]
	if old == nil || old.UID != pod.UID {
		return nil
	}
	w.remove(old)
	return append(w.askAgain(old), w.wake(nil)...)
}

func (w *waitlist) insert(pod *waiting) {
	w.pods[pod.Key()] = pod
	for _, gate := range pod.Gates {
		put(w.byGate, gate, pod)
		policy := w.policies[gate]
		if policy == nil {
			continue
		}
		pod.dependencies = append(pod.dependencies, policy.Dependencies(pod.Pod)...)
		if name, ok := policy.Gang(pod.Pod); ok && w.gangs[name] == nil {
			w.gangs[name] = &gangState{}
		}
	}
	for _, dependency := range pod.dependencies {
		if len(w.waiters[dependency]) == 0 {
			w.sources.need(dependency)
		}
		put(w.waiters, dependency, pod)
	}
}

func (w *waitlist) remove(pod *waiting) {
	w.fleet.Leave(pod.UID)
	delete(w.pods, pod.Key())
	for _, gate := range pod.Gates {
		w.takeGate(gate, pod)
	}
	for _, dependency := range pod.dependencies {
		w.takeWaiter(dependency, pod)
	}
}

func (w *waitlist) takeGate(gate string, pod *waiting) {
	if delete(w.byGate[gate], pod.Key()); len(w.byGate[gate]) == 0 {
		delete(w.byGate, gate)
	}
}

func (w *waitlist) takeWaiter(dependency gates.Dependency, pod *waiting) {
	if delete(w.waiters[dependency], pod.Key()); len(w.waiters[dependency]) == 0 {
		delete(w.waiters, dependency)
		delete(w.gangs, dependency)
		w.sources.drop(dependency)
	}
}

func put[K comparable](index map[K]map[types.NamespacedName]*waiting, key K, pod *waiting) {
	if index[key] == nil {
		index[key] = map[types.NamespacedName]*waiting{}
	}
	index[key][pod.Key()] = pod
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
		old := w.pods[key]
		w.replace(old, &waiting{Pod: old.Pod, lifted: old.lifted, prefers: old.prefers, clock: old.clock, missing: old.missing})
	}
	return out
}

// arrived returns the pods that wait for a thing that has come to be.
func (w *waitlist) arrived(dependency gates.Dependency) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake([]gates.Dependency{dependency})
}

// open says that the first view is complete, and returns everyone.
func (w *waitlist) open() []types.NamespacedName {
	w.mu.Lock()
	w.awake = true
	w.mu.Unlock()
	return w.everyone()
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

// setNode takes a node as it is now. changed is false when nothing about it moved that pods could care for.
func (w *waitlist) setNode(node *gates.Node) (wake []types.NamespacedName, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	improved := w.fleet.SetNode(node)
	return w.wake(improved), improved != nil
}

// deleteNode returns the pods that counted on the node.
func (w *waitlist) deleteNode(name string) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fleet.DeleteNode(name)
	return w.wake(nil)
}

func (w *waitlist) bindPod(pod *boundPod) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake(w.fleet.Bind(pod.uid, pod.node, pod.takes))
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

// wake lists the pods that wait for any of the dependencies, and those whose node has filled up or gone. Pods that wait for an image are left to sleep when no warm
// node has room for them: ten thousand pods need not look at each node that frees one place.
func (w *waitlist) wake(dependencies []gates.Dependency) []types.NamespacedName {
	if !w.awake {
		return nil
	}
	var out []types.NamespacedName
	for _, dependency := range dependencies {
		for key, pod := range w.waiters[dependency] {
			if !pod.woken && (dependency.Kind != gates.KindImage || w.fleet.Improved(pod.Shape)) {
				pod.woken = true
				out = append(out, key)
			}
		}
	}
	w.fleet.Settled()
	return append(out, w.fleet.Lost()...)
}
