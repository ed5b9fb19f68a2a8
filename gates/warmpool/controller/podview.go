package controller

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/internal/resources"
	"headstart.dev/readiness"
)

// LabelPool is on every pause pod; its value is the name of the WarmPool, in whose namespace the pod is.
const LabelPool = readiness.LabelWarmPool

// reasonPreempted is the DisruptionTarget reason of a pod that the scheduler removes for another.
// Source: k8s.io/api core/v1 PodReasonPreemptionByScheduler@v0.37.2.
const reasonPreempted = corev1.PodReasonPreemptionByScheduler

// podView is what the model keeps of a pod.
type podView struct {
	uid          types.UID
	key          types.NamespacedName
	labels       map[string]string
	node         string
	nodeSelector map[string]string
	requests     resources.List
	created      time.Time
	gates        []string
	// replicaOf is the pool whose pause pod this is.
	replicaOf types.NamespacedName
	daemon    bool
	over      bool // finished or being deleted: it asks for nothing any more
	leaving   bool // being deleted and not finished: its node still holds what it has
	ready     bool
	preempted bool
	nominated bool // it made room for itself by preemption
	// nominatedTo is the node on which it did, while it is not bound.
	nominatedTo string
	// unscheduled is what the scheduler says of a replica that no node has room for.
	unscheduled string
}

// StripPod is a transform for the cache that this controller reads pods from: of the 5 to 20 KB of a real pod it keeps
// what newPodView reads.
func StripPod(object any) (any, error) {
	in, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: in.Name, Namespace: in.Namespace, UID: in.UID, ResourceVersion: in.ResourceVersion, Labels: in.Labels,
		CreationTimestamp: in.CreationTimestamp, DeletionTimestamp: in.DeletionTimestamp,
	}}
	if owner := metav1.GetControllerOf(in); owner != nil {
		out.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	out.Spec = corev1.PodSpec{
		NodeName: in.Spec.NodeName, NodeSelector: in.Spec.NodeSelector, SchedulingGates: in.Spec.SchedulingGates,
		Overhead: in.Spec.Overhead, Resources: in.Spec.Resources,
		InitContainers: stripContainers(in.Spec.InitContainers), Containers: stripContainers(in.Spec.Containers),
	}
	out.Status.Phase, out.Status.NominatedNodeName = in.Status.Phase, in.Status.NominatedNodeName
	for _, c := range in.Status.Conditions {
		if c.Type == corev1.PodReady || c.Type == corev1.DisruptionTarget {
			out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: c.Reason})
		}
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && in.Labels[LabelPool] != "" {
			out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
		}
	}
	return out, nil
}

func stripContainers(in []corev1.Container) []corev1.Container {
	out := make([]corev1.Container, len(in))
	for i := range in {
		out[i] = corev1.Container{Resources: in[i].Resources, RestartPolicy: in[i].RestartPolicy}
	}
	return out
}

func newPodView(pod *corev1.Pod) *podView {
	v := &podView{
		uid: pod.UID, key: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, labels: pod.Labels,
		node: pod.Spec.NodeName, nodeSelector: pod.Spec.NodeSelector, requests: resources.New(resources.OfPod(pod)),
		created: pod.CreationTimestamp.Time, nominated: pod.Status.NominatedNodeName != "", nominatedTo: pod.Status.NominatedNodeName,
	}
	finished := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	v.leaving = pod.DeletionTimestamp != nil && !finished
	v.over = v.leaving || finished
	for _, gate := range pod.Spec.SchedulingGates {
		v.gates = append(v.gates, gate.Name)
	}
	if pool := pod.Labels[LabelPool]; pool != "" {
		v.replicaOf = types.NamespacedName{Namespace: pod.Namespace, Name: pool}
	}
	if owner := metav1.GetControllerOf(pod); owner != nil {
		v.daemon = owner.Kind == "DaemonSet" || owner.Kind == "Node"
	}
	for _, c := range pod.Status.Conditions {
		switch c.Type {
		case corev1.PodReady:
			v.ready = c.Status == corev1.ConditionTrue
		case corev1.PodScheduled:
			if c.Status == corev1.ConditionFalse && v.replicaOf.Name != "" {
				v.unscheduled = schedulersWords(c)
			}
		case corev1.DisruptionTarget:
			v.preempted = c.Status == corev1.ConditionTrue && c.Reason == reasonPreempted
		default:
		}
	}
	return v
}

// schedulersWords is why a replica has no node, without the account of why preemption does not help: it never preempts.
func schedulersWords(c corev1.PodCondition) string {
	words, _, _ := strings.Cut(c.Message, " preemption:")
	if words = strings.TrimSpace(words); words == "" {
		words = c.Reason
	}
	return words[:min(len(words), maxScheduling)]
}

// sameAs reports whether an update changes nothing that the model looks at: most updates of a pod do not.
func (v *podView) sameAs(o *podView) bool {
	return v.node == o.node && v.over == o.over && v.leaving == o.leaving && maps.Equal(v.requests, o.requests) && v.ready == o.ready && v.preempted == o.preempted &&
		v.nominated == o.nominated && v.nominatedTo == o.nominatedTo && v.unscheduled == o.unscheduled && slices.Equal(v.gates, o.gates) && sameLabels(v.labels, o.labels)
}

func sameLabels(a, b map[string]string) bool { return len(a) == len(b) && includes(a, b) }

// includes reports whether labels has all of wanted.
func includes(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}
