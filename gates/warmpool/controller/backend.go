package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
)

const (
	fieldOwner     = "headstart-warmpool"
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "headstart"
)

// request is what a backend is to hold.
type request struct {
	replicas int32
	shape    corev1.ResourceList
	// template is where replicas go and what else their pods have.
	template v1alpha1.WarmPoolTemplate
	// busy counts the nodes of the pool that hold work.
	busy int32
	// surplus lists bound pause pods, those to go first in front; the backend needs it only where it shrinks.
	surplus func(n int) []types.NamespacedName
	// pause is an image that the pool's nodes have, "" where none is known.
	pause string
}

// backend makes the cluster hold capacity. Both methods are idempotent, write only differences, and may be called at
// any time, by one goroutine for one pool.
//
//	apply  error is *unavailableError  the cluster lacks what the backend needs: a person must act; tried again slowly
//	apply  any other error             retried with back-off
//	release                            removes what apply made for this pool; nothing there is no error
type backend interface {
	apply(ctx context.Context, wp *v1alpha1.WarmPool, req request) error
	release(ctx context.Context, wp *v1alpha1.WarmPool) error
}

// unavailableError says what a backend lacks, for the Ready condition.
type unavailableError struct{ reason, message string }

func (e *unavailableError) Error() string { return e.message }

func unavailable(reason, format string, args ...any) error {
	return &unavailableError{reason: reason, message: fmt.Sprintf(format, args...)}
}

func ownerReference(wp *v1alpha1.WarmPool) *metav1.OwnerReference {
	return metav1.NewControllerRef(wp, v1alpha1.GroupVersion.WithKind("WarmPool"))
}

func poolLabels(wp *v1alpha1.WarmPool) map[string]string {
	return map[string]string{LabelPool: wp.Name}
}
