package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/resources"
)

// nudgeAfter is how long a pod may be nominated to a node that has room for it. Binding follows the last victim's end
// by some tens of milliseconds; what takes longer was forgotten.
const nudgeAfter = 400 * time.Millisecond

// nudgeMost is the longest time between two nudges for one pod. Each time that one did not help the next waits twice as
// long: a pod may wait for something else than room, and for ever.
const nudgeMost = time.Minute

// wakeSeconds is how long a pod lives that was made to wake the scheduler, where nobody is left to delete it.
const wakeSeconds = 10

// nomination is a pod for which the scheduler has preempted replicas, and that is not bound yet.
type nomination struct {
	node  string
	since time.Time // of the nomination, or of the last nudge
	every time.Duration
}

// nominate takes in whether a pod waits on one of the pool's nodes, and reports whether it began to.
func (p *pool) nominate(m *model, now time.Time, v *podView) bool {
	if v.node != "" || v.over || v.nominatedTo == "" || !p.hosts(m.nodes[v.nominatedTo]) {
		delete(p.waiting, v.uid)
		return false
	}
	if known := p.waiting[v.uid]; known != nil && known.node == v.nominatedTo {
		return false
	}
	p.waiting[v.uid] = &nomination{node: v.nominatedTo, since: now, every: nudgeAfter}
	return true
}

// forgotten returns the nodes on which pods have waited beside free room for too long, and when to look next if some
// pod still waits.
//
// Pods that preempt at once on one node choose the same victims. A replica is gone the moment it is deleted, so the last
// of them often finds its victims gone while the scheduler still counts its preemption as under way and drops the
// deletions' events; then nothing but another event, or five minutes, brings it back.
// Source: k8s.io/kubernetes pkg/scheduler/framework/preemption/executor.go prepareCandidateAsync@v1.37.2, whose "already
// deleted" path activates nobody.
func (p *pool) forgotten(m *model, now time.Time) (nodes []string, next time.Duration) {
	for uid, n := range p.waiting {
		v, node := m.pods[uid], m.nodes[n.node]
		if v == nil || node == nil || len(v.requests) == 0 {
			delete(p.waiting, uid)
			continue
		}
		if now.Sub(n.since) >= n.every && resources.Fit(v.requests, node.allocatable, m.held(n.node)) {
			n.since, n.every = now, min(2*n.every, nudgeMost)
			nodes = append(nodes, n.node)
		}
		next = soonest(next, max(nudgeAfter, n.every-now.Sub(n.since)))
	}
	return nodes, next
}

// held is what the pods of a node hold, as the scheduler counts: those that are being deleted too.
func (m *model) held(node string) resources.List {
	held := resources.List{}
	held.Add(m.used[node], 1)
	for _, v := range m.on[node] {
		if v.leaving {
			held.Add(v.requests, 1)
		}
	}
	return held
}

// nudge makes the scheduler look again at forgotten pods: the end of any pod that is bound to a node does. It makes such
// a pod, of no size, and deletes it, and returns when to look again, 0 if no pod waits.
func (r *reconciler) nudge(ctx context.Context, wp *v1alpha1.WarmPool) (time.Duration, error) {
	var nodes []string
	var next time.Duration
	r.model.with(client.ObjectKeyFromObject(wp), func(p *pool) {
		nodes, next = p.forgotten(r.model, r.now())
		if len(nodes) > 0 {
			p.nudges++
		}
	})
	if len(nodes) == 0 {
		return next, nil
	}
	// One is enough: the event makes the scheduler look at every pod that lacks resources.
	r.log.Info("wakes the scheduler for pods whose room is free", "warmPool", klog.KObj(wp), "node", nodes[0], "pods", len(nodes))
	pod := wakePod(wp, nodes[0])
	if err := r.client.Create(ctx, pod); err != nil {
		return 0, fmt.Errorf("create pod to wake the scheduler: %w", err)
	}
	if err := r.client.Delete(ctx, pod, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("delete pod that woke the scheduler: %w", err)
	}
	return next, nil
}

// wakePod is bound to its node from the start and asks for nothing. It has a replica's template, so that what admits
// replicas admits it, but not their label: no ReplicaSet may take it for one.
func wakePod(wp *v1alpha1.WarmPool, node string) *corev1.Pod {
	template, deadline := podTemplate(wp, wp.Spec.Template, nil, defaultPauseImage), int64(wakeSeconds)
	spec := template.Spec
	spec.Affinity, spec.TopologySpreadConstraints = nil, nil
	spec.ActiveDeadlineSeconds = &deadline
	spec.NodeName, spec.NodeSelector = node, nil
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: wp.Namespace, GenerateName: wp.Name + "-wake-", Labels: map[string]string{labelManagedBy: managedBy},
			OwnerReferences: []metav1.OwnerReference{*ownerReference(wp)},
		},
		Spec: spec,
	}
}
