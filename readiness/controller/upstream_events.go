package controller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
)

// Events about nodes under a rule of upstream's form are upstream's: same reasons, actions, texts and controller name.
// Source: kubernetes-sigs/node-readiness-controller internal/controller/node_controller.go@v0.5.0.
const (
	reasonTaintAdded   = "TaintAdded"
	reasonTaintRemoved = "TaintRemoved"
	reasonTaintAdopted = "TaintAdopted"
	actionAddTaint     = "AddTaint"
	actionRemoveTaint  = "RemoveTaint"
	actionAdoptTaint   = "AdoptTaint"
	upstreamComponent  = "node-readiness-controller"
)

func (r *recorder) upstreamTransition(node *corev1.Node, t *readiness.Transition) {
	switch t.State {
	case readiness.StateHeld:
		r.offer(upstreamEvent(node, reasonTaintAdded, actionAddTaint, fmt.Sprintf("Taint '%s' added by rule '%s'", readiness.TaintID(&t.Rule.Taint), t.Rule.Name)))
	case readiness.StateReleased, readiness.StateTimedOut:
		r.offer(upstreamEvent(node, reasonTaintRemoved, actionRemoveTaint, fmt.Sprintf("Taint '%s' removed by rule '%s'", readiness.TaintID(&t.Rule.Taint), t.Rule.Name)))
	case readiness.StateIgnored, readiness.StateUnbound, readiness.StateForeign, readiness.StateUndecided, readiness.StateSuspended:
	}
}

// adopted tells that a rule has found its taint on a node that it holds.
func (r *recorder) adopted(node *corev1.Node, rule *readiness.Rule) {
	r.offer(upstreamEvent(node, reasonTaintAdopted, actionAdoptTaint, fmt.Sprintf("Taint '%s' is now managed by rule '%s'", readiness.TaintID(&rule.Taint), rule.Name)))
}

func upstreamEvent(node *corev1.Node, reason, action, message string) *corev1.Event {
	event := nodeEvent(node, corev1.EventTypeNormal, reason, message)
	event.Source = corev1.EventSource{}
	event.Action, event.ReportingController, event.ReportingInstance = action, upstreamComponent, eventComponent
	event.EventTime = metav1.NewMicroTime(time.Now())
	event.FirstTimestamp, event.LastTimestamp, event.Count = metav1.Time{}, metav1.Time{}, 0
	return event
}
