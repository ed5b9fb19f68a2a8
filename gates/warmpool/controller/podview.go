package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// LabelPool is on every pause pod; its value is the name of the WarmPool, in whose namespace the pod is.
const LabelPool = "headstart.dev/warm-pool"

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
	requests     amounts
	created      time.Time
	gates        []string
	// replicaOf is the pool whose pause pod this is.
	replicaOf types.NamespacedName
	daemon    bool
	over      bool // finished or being deleted: it asks for nothing any more
	ready     bool
	preempted bool
	nominated bool // it made room for itself by preemption
	// nominatedTo is the node on which it did, while it is not bound.
	nominatedTo string
}

func newPodView(pod *corev1.Pod) *podView {
	v := &podView{
		uid: pod.UID, key: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, labels: pod.Labels,
		node: pod.Spec.NodeName, nodeSelector: pod.Spec.NodeSelector, requests: newAmounts(requestsOf(pod)),
		created: pod.CreationTimestamp.Time, nominated: pod.Status.NominatedNodeName != "", nominatedTo: pod.Status.NominatedNodeName,
		over: pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
	}
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
		case corev1.DisruptionTarget:
			v.preempted = c.Status == corev1.ConditionTrue && c.Reason == reasonPreempted
		default:
		}
	}
	return v
}

// sameAs reports whether an update changes nothing that the model looks at: most updates of a pod do not.
func (v *podView) sameAs(o *podView) bool {
	return v.node == o.node && v.over == o.over && v.ready == o.ready && v.preempted == o.preempted &&
		v.nominated == o.nominated && v.nominatedTo == o.nominatedTo && slices.Equal(v.gates, o.gates) && sameLabels(v.labels, o.labels)
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
