package controller

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"headstart.dev/gates/v1alpha1"
)

// Types of a WarmPool's conditions, and their reasons.
const (
	// conditionAccepted is False while the spec cannot be followed; the pool then keeps the size that it had.
	conditionAccepted = "Accepted"
	// conditionReady is True while at least the desired replicas hold capacity.
	conditionReady = "Ready"
	// conditionLimited is True while max or budget keep the pool smaller than what is wanted.
	conditionLimited = "Limited"

	reasonInForce       = "InForce"
	reasonInvalid       = "Invalid"
	reasonNoWorkload    = "ScalableRefNotFound"
	reasonAtSize        = "AtSize"
	reasonFilling       = "Filling"
	reasonConflict      = "Conflict"
	reasonMissingCRD    = "CRDNotInstalled"
	reasonNotServed     = "NotServed"
	reasonNotStatic     = "NodePoolNotStatic"
	reasonNotOptedIn    = "NotOptedIn"
	reasonNodePoolLimit = "NodePoolLimits"
	reasonPriorityClass = "PriorityClass"
	reasonBackend       = "BackendFailed"
	reasonWithinLimits  = "WithinLimits"
	reasonMax           = "Max"
	reasonBudget        = "Budget"
)

// maxEventMessage is what the API takes of an event's note.
const maxEventMessage = 1024

// recorder tells of transitions that a person must act on.
type recorder struct{ events.EventRecorder }

// trouble reports that a pool's spec or backend turned out unusable.
func (r recorder) trouble(wp *v1alpha1.WarmPool, reason, message string) {
	event := reasonInvalid
	if reason == reasonConflict {
		event = reasonConflict
	}
	r.Eventf(wp, nil, corev1.EventTypeWarning, event, reason, "%s", message[:min(len(message), maxEventMessage)])
}
