package controller

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
)

// podKey is a pod as one watch sees it: two rules may watch the same pod by different selectors.
type podKey struct {
	watch watchKey
	name  string
}

func podList(pods map[podKey]readiness.Pod) []readiness.Pod {
	return slices.Collect(maps.Values(pods))
}

// ObservePod takes over a pod; known says whether it exists still.
func (e *Engine) ObservePod(watch watchKey, in *corev1.Pod, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.observePod(watch, in, known)
}

func (e *Engine) observePod(watch watchKey, in *corev1.Pod, known bool) {
	name := in.Spec.NodeName
	if name == "" {
		return
	}
	key := podKey{watch: watch, name: in.Name}
	pods := e.pods[name]
	old, had := pods[key]
	n := e.nodes[name]
	if had && n != nil && (!known || old.Mark() != podMark(in)) {
		n.renewed(old.Mark())
	}
	if !known {
		delete(pods, key)
	} else {
		if pods == nil {
			pods = map[podKey]readiness.Pod{}
			e.pods[name] = pods
		}
		pods[key] = podFact(in)
	}
	if len(pods) == 0 {
		delete(e.pods, name)
		e.forgetBuried(name)
	}
	if n != nil {
		n.facts.Pods = podList(pods)
		e.decide(n)
	}
}

// ReplacePods takes over a complete list of a watch.
func (e *Engine) ReplacePods(watch watchKey, list []*corev1.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clearPods(watch)
	for _, in := range list {
		e.observePod(watch, in, true)
	}
	for name, n := range e.nodes {
		n.facts.Pods = podList(e.pods[name])
	}
	for name := range e.buried {
		e.forgetBuried(name)
	}
	e.decideAll()
}

// forgetBuried drops what was kept of a Node that is gone, when nothing is left that could be taken for news.
func (e *Engine) forgetBuried(name string) {
	if _, there := e.drivers[name]; !there && len(e.pods[name]) == 0 {
		delete(e.buried, name)
	}
}

func podMark(in *corev1.Pod) readiness.Mark {
	p := podFact(in)
	return p.Mark()
}

// clearPods forgets what a watch has seen.
func (e *Engine) clearPods(watch watchKey) {
	for name, pods := range e.pods {
		maps.DeleteFunc(pods, func(k podKey, _ readiness.Pod) bool { return k.watch == watch })
		if len(pods) == 0 {
			delete(e.pods, name)
		}
	}
}

func podFact(in *corev1.Pod) readiness.Pod {
	p := readiness.Pod{Namespace: in.Namespace, Name: in.Name, Labels: in.Labels, Terminating: in.DeletionTimestamp != nil}
	if !in.CreationTimestamp.IsZero() {
		p.CreatedAt = in.CreationTimestamp.Unix()
	}
	for i := range in.Status.ContainerStatuses {
		if running := in.Status.ContainerStatuses[i].State.Running; running != nil && !running.StartedAt.IsZero() {
			p.StartedAt = max(p.StartedAt, running.StartedAt.Unix())
		}
	}
	if owner := metav1.GetControllerOf(in); owner != nil && owner.Kind == "DaemonSet" {
		p.DaemonSet = owner.Name
	}
	for i := range in.Status.Conditions {
		if c := &in.Status.Conditions[i]; c.Type == corev1.PodReady {
			p.Ready, p.Changed = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	p.True = intern(readiness.JoinTrue(in.Status.Conditions))
	return p
}

// stripPod keeps the fields of a Pod that are in use.
func stripPod(in *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: in.Name, Namespace: intern(in.Namespace), ResourceVersion: in.ResourceVersion, DeletionTimestamp: in.DeletionTimestamp,
		CreationTimestamp: in.CreationTimestamp, Labels: internMap(in.Labels),
	}}
	for i := range in.Status.ContainerStatuses {
		if running := in.Status.ContainerStatuses[i].State.Running; running != nil {
			out.Status.ContainerStatuses = append(out.Status.ContainerStatuses, corev1.ContainerStatus{State: corev1.ContainerState{Running: running}})
		}
	}
	if owner := metav1.GetControllerOf(in); owner != nil {
		out.OwnerReferences = []metav1.OwnerReference{{Kind: intern(owner.Kind), Name: intern(owner.Name), Controller: owner.Controller}}
	}
	out.Spec.NodeName = in.Spec.NodeName
	for i := range in.Status.Conditions {
		if c := &in.Status.Conditions[i]; c.Type == corev1.PodReady || c.Status == corev1.ConditionTrue {
			out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{
				Type: c.Type, Status: corev1.ConditionStatus(intern(string(c.Status))), LastTransitionTime: c.LastTransitionTime,
			})
		}
	}
	return out
}

// ObserveDaemonSet takes over a DaemonSet; known says whether it exists still. Only a change of where its pods can be
// matters, not the status that changes with every pod.
func (e *Engine) ObserveDaemonSet(in *appsv1.DaemonSet, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.setDaemonSet(in, known) {
		e.daemonSetsChanged()
	}
}

// daemonSetsChanged looks again at what depends on DaemonSets: nodes, and what is said of rules.
func (e *Engine) daemonSetsChanged() {
	e.rewatch()
	e.decideAll()
	for _, r := range e.rules {
		if len(r.DaemonSets) > 0 {
			e.markRule(r.UID)
		}
	}
}

// ReplaceDaemonSets takes over a complete list.
func (e *Engine) ReplaceDaemonSets(list []*appsv1.DaemonSet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.daemonSets = map[string]map[string]*readiness.DaemonSetSpec{}
	for _, in := range list {
		e.setDaemonSet(in, true)
	}
	e.daemonSetsChanged()
}

func (e *Engine) setDaemonSet(in *appsv1.DaemonSet, known bool) (changed bool) {
	of := e.daemonSets[in.Namespace]
	if !known {
		_, changed = of[in.Name]
		delete(of, in.Name)
		return changed
	}
	sel, err := metav1.LabelSelectorAsSelector(in.Spec.Selector)
	if err != nil {
		return false
	}
	if of == nil {
		of = map[string]*readiness.DaemonSetSpec{}
		e.daemonSets[in.Namespace] = of
	}
	if old := of[in.Name]; old != nil && old.UID == in.UID && old.Generation == in.Generation {
		return false
	}
	of[in.Name] = &readiness.DaemonSetSpec{
		Namespace: in.Namespace, Name: in.Name, UID: in.UID, Generation: in.Generation, Selector: sel,
		PodLabels: in.Spec.Template.Labels, Template: in.Spec.Template.Spec,
	}
	return true
}

// stripDaemonSet keeps the fields of a DaemonSet that are in use.
func stripDaemonSet(in *appsv1.DaemonSet) *appsv1.DaemonSet {
	out := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{
		Name: in.Name, Namespace: in.Namespace, UID: in.UID, Generation: in.Generation, ResourceVersion: in.ResourceVersion,
	}}
	out.Spec.Selector = in.Spec.Selector
	spec := &in.Spec.Template.Spec
	out.Spec.Template.Labels = internMap(in.Spec.Template.Labels)
	out.Spec.Template.Spec = corev1.PodSpec{NodeSelector: spec.NodeSelector, Affinity: spec.Affinity, Tolerations: spec.Tolerations}
	return out
}

// csiNode is what the engine keeps of a CSINode.
type csiNode struct {
	drivers []string
	facts   readiness.CSINode
}

// ObserveCSINode takes over the drivers of a node; known says whether the CSINode exists still.
func (e *Engine) ObserveCSINode(in *storagev1.CSINode, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.drivers[in.Name]
	e.setDrivers(in, known)
	if n := e.nodes[in.Name]; n != nil {
		for _, driver := range old.drivers {
			if !slices.Contains(e.drivers[in.Name].drivers, driver) {
				n.renewed(readiness.DriverMark(driver))
			}
		}
		n.facts.CSIDrivers, n.facts.CSINode = e.drivers[in.Name].drivers, e.drivers[in.Name].facts
		e.decide(n)
	}
	e.forgetBuried(in.Name)
}

// ReplaceCSINodes takes over a complete list.
func (e *Engine) ReplaceCSINodes(list []*storagev1.CSINode) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drivers = map[string]csiNode{}
	for _, in := range list {
		e.setDrivers(in, true)
	}
	for name, n := range e.nodes {
		n.facts.CSIDrivers, n.facts.CSINode = e.drivers[name].drivers, e.drivers[name].facts
	}
	for name := range e.buried {
		e.forgetBuried(name)
	}
	e.decideAll()
}

func (e *Engine) setDrivers(in *storagev1.CSINode, known bool) {
	if !known {
		delete(e.drivers, in.Name)
		return
	}
	out := csiNode{drivers: make([]string, 0, len(in.Spec.Drivers))}
	for i := range in.Spec.Drivers {
		out.drivers = append(out.drivers, intern(in.Spec.Drivers[i].Name))
	}
	if !in.CreationTimestamp.IsZero() {
		out.facts.CreatedAt = in.CreationTimestamp.Unix()
	}
	for i := range in.OwnerReferences {
		if owner := &in.OwnerReferences[i]; owner.Kind == "Node" {
			out.facts.Owner = owner.UID
		}
	}
	e.drivers[in.Name] = out
}

// stripCSINode keeps the names of the drivers, and whose they are.
func stripCSINode(in *storagev1.CSINode) *storagev1.CSINode {
	out := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{
		Name: in.Name, ResourceVersion: in.ResourceVersion, CreationTimestamp: in.CreationTimestamp, OwnerReferences: in.OwnerReferences,
	}}
	for i := range in.Spec.Drivers {
		out.Spec.Drivers = append(out.Spec.Drivers, storagev1.CSINodeDriver{Name: intern(in.Spec.Drivers[i].Name)})
	}
	return out
}
