package controller

import (
	"cmp"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/readiness"
)

// watchKey names a watch that a rule needs: of all DaemonSets, of all CSINodes, of all ResourceSlices, of the pods of a
// namespace that a selector selects, or of one object and an expression over it. What no rule asks about is never watched.
type watchKey struct {
	kind      watchKind
	namespace string
	// selector is of pods; for an object it is objectSelector.
	selector string
}

type watchKind int

const (
	watchDaemonSets watchKind = iota
	watchCSINodes
	watchPods
	watchResourceSlices
	watchObject
)

func (k watchKind) String() string {
	return [...]string{watchDaemonSets: "daemonsets", watchCSINodes: "csinodes", watchPods: "pods", watchResourceSlices: "resourceslices", watchObject: "objects"}[k]
}

// wants are the watches of a rule: those that it cannot be decided without, those of its labels, and those that only a
// warning comes of.
type wants struct{ required, optional, advisory []watchKey }

// watchesOf are those that the rule needs as far as is known: the pods of a DaemonSet that is found by name can be
// watched only once the DaemonSet is known.
func (e *Engine) watchesOf(r *readiness.Rule) (w wants) {
	if len(r.CSIDrivers) > 0 {
		w.required = append(w.required, watchKey{kind: watchCSINodes})
	}
	if len(r.Devices) > 0 {
		w.required = append(w.required, watchKey{kind: watchResourceSlices})
	}
	for i := range r.Objects {
		w.required = append(w.required, objectWatch(&r.Objects[i]))
	}
	for i := range r.DaemonSets {
		w.required = e.addDaemonSet(w.required, &r.DaemonSets[i])
		// Whether its pods tolerate the taint is told whichever way they are found.
		w.advisory = append(w.advisory, watchKey{kind: watchDaemonSets})
	}
	for i := range r.Optional {
		w.optional = e.addDaemonSet(w.optional, &r.Optional[i])
	}
	return w
}

func (e *Engine) addDaemonSet(keys []watchKey, ds *readiness.DaemonSet) []watchKey {
	if ds.Wait != nil {
		keys = append(keys, podWatch(ds.Wait.Namespace, ds.Wait.Selector))
	}
	if ds.Selector != nil {
		return append(keys, podWatch(ds.Namespace, ds.Selector))
	}
	keys = append(keys, watchKey{kind: watchDaemonSets})
	for _, spec := range e.daemonSetsOf(ds.Namespace) {
		if ds.Wants(spec.Namespace, spec.Name) {
			keys = append(keys, podWatch(spec.Namespace, spec.Selector))
		}
	}
	return keys
}

func podWatch(namespace string, selector labels.Selector) watchKey {
	return watchKey{kind: watchPods, namespace: namespace, selector: selector.String()}
}

// wantedWatches are those of all rules.
func (e *Engine) wantedWatches() map[watchKey]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	wanted := map[watchKey]bool{}
	for _, r := range e.rules {
		w := e.watchesOf(r)
		for _, key := range slices.Concat(w.required, w.optional, w.advisory) {
			wanted[key] = true
		}
	}
	return wanted
}

// rewatch sees which rules have all that they need, and asks for the watches that are wanted now. It says whether that
// changed. e.mu is held.
func (e *Engine) rewatch() (changed bool) {
	for _, r := range e.rules {
		entry := e.byUID[r.UID]
		now, trouble := e.sightOf(r)
		changed = changed || now != entry.blind || !entry.looked
		if now != entry.blind || trouble != entry.trouble || !entry.looked {
			e.markRule(r.UID)
		}
		entry.blind, entry.trouble, entry.looked = now, trouble, true
	}
	select {
	case e.watchEvent <- struct{}{}:
	default:
	}
	return changed
}

// sightOf says what of the rule cannot be looked at, and what is in the way of looking, be it known already or not.
func (e *Engine) sightOf(r *readiness.Rule) (blind readiness.Blind, trouble string) {
	w := e.watchesOf(r)
	for _, key := range w.required {
		trouble = cmp.Or(trouble, e.failing[key])
		if !e.synced[key] {
			blind.Required, blind.Why = true, cmp.Or(blind.Why, e.failing[key])
		}
	}
	for _, key := range w.optional {
		trouble = cmp.Or(trouble, e.failing[key])
		blind.Optional = blind.Optional || !e.synced[key]
	}
	return blind, trouble
}

func (e *Engine) blindTo(r *readiness.Rule) readiness.Blind {
	if entry := e.byUID[r.UID]; entry != nil {
		if entry.unknown {
			return readiness.Blind{Required: true, Optional: true, Why: entry.invalid}
		}
		return entry.blind
	}
	return readiness.Blind{}
}

// watchAsked notes the outcome of a request that opens a watch. One that worked before goes on with what it knows, and only
// a lasting refusal is told of.
func (e *Engine) watchAsked(key watchKey, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil && e.synced[key] && !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
		return
	}
	why := cannotList(key.kind.String(), err)
	if e.failing[key] == why {
		return
	}
	if why != "" && e.failing[key] == "" {
		e.log.Error(err, "cannot look at what rules ask about", "resource", key.kind.String(), "namespace", key.namespace)
	}
	if why == "" {
		delete(e.failing, key)
	} else {
		e.failing[key] = why
	}
	if e.rewatch() {
		e.decideAll()
	}
}

// watchSynced notes that a watch has listed, or (false) that it has stopped.
func (e *Engine) watchSynced(key watchKey, synced bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.synced[key] == synced {
		return
	}
	if synced {
		e.synced[key] = true
	} else {
		delete(e.synced, key)
		delete(e.failing, key)
	}
	if e.rewatch() {
		e.decideAll()
	}
}

// unwatch forgets what a stopped watch has seen.
func (e *Engine) unwatch(key watchKey) {
	e.watchSynced(key, false)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch key.kind {
	case watchPods:
		e.clearPods(key)
	case watchDaemonSets:
		clear(e.daemonSets)
	case watchCSINodes:
		clear(e.drivers)
	case watchResourceSlices:
		e.slices.clear()
	case watchObject:
		delete(e.objects, key)
	}
}
