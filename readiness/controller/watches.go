package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/readiness"
)

// watchKey names a watch that a rule needs: of all DaemonSets, of all CSINodes, or of the pods of a namespace that a
// selector selects. Pods that no rule asks about are never watched.
type watchKey struct {
	kind      watchKind
	namespace string
	selector  string
}

type watchKind int

const (
	watchDaemonSets watchKind = iota
	watchCSINodes
	watchPods
)

// watchesOf are those that the rule needs as far as is known: the pods of a DaemonSet that is found by name can be
// watched only once the DaemonSet is known.
func (e *Engine) watchesOf(r *readiness.Rule) []watchKey {
	var keys []watchKey
	if len(r.CSIDrivers) > 0 {
		keys = append(keys, watchKey{kind: watchCSINodes})
	}
	for _, ds := range slices.Concat(r.DaemonSets, r.Optional) {
		if ds.Selector != nil {
			keys = append(keys, podWatch(ds.Namespace, ds.Selector))
			continue
		}
		keys = append(keys, watchKey{kind: watchDaemonSets})
		for _, spec := range e.daemonSets[ds.Namespace] {
			if ds.Name == readiness.AllDaemonSets || ds.Name == spec.Name {
				keys = append(keys, podWatch(spec.Namespace, spec.Selector))
			}
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
		for _, key := range e.watchesOf(r) {
			wanted[key] = true
		}
	}
	return wanted
}

// rewatch sees which rules have all that they need, and asks for the watches that are wanted now. It says whether a
// rule became ready. e.mu is held.
func (e *Engine) rewatch() (changed bool) {
	for _, r := range e.rules {
		ready := true
		for _, key := range e.watchesOf(r) {
			ready = ready && e.synced[key]
		}
		entry := e.byUID[r.UID]
		changed = changed || ready != entry.ready
		entry.ready = ready
	}
	select {
	case e.watchEvent <- struct{}{}:
	default:
	}
	return changed
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
	}
}
