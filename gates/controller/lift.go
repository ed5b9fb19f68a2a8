package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"

	"headstart.dev/gates"
)

// patchTimeout bounds one patch; the API server answers in milliseconds and gives up by itself after a minute.
const patchTimeout = 30 * time.Second

// fieldManager names the controller's writes in a pod's managedFields.
const fieldManager = "headstart-gates"

// liftPatch is the strategic merge patch that removes gates. It names them (never an index: other owners remove theirs
// at the same time, and never null: that removes everybody's) and holds for one state of one pod only.
type liftPatch struct {
	Metadata patchMetadata `json:"metadata"`
	Spec     patchSpec     `json:"spec"`
}

type patchMetadata struct {
	UID types.UID `json:"uid"`
	// ResourceVersion makes the API server refuse a patch of a pod that changed since it was read. The list of preferences
	// is replaced as a whole, so it must be the one that was read. And a patch that reaches a pod at the moment of its
	// deletion completes the deletion, by name: without the version it was seen to delete the pod that had taken the name.
	// Source: k8s.io/apiserver pkg/registry/generic/registry/store.go@v0.37.2, deleteWithoutFinalizers.
	ResourceVersion string `json:"resourceVersion"`
}

type patchSpec struct {
	SchedulingGates []gateDeletion `json:"schedulingGates"`
	Affinity        *patchAffinity `json:"affinity,omitempty"`
}

type gateDeletion struct {
	Directive string `json:"$patch"`
	Name      string `json:"name"`
}

type patchAffinity struct {
	NodeAffinity patchNodeAffinity `json:"nodeAffinity"`
}

type patchNodeAffinity struct {
	// Required is set under placement Required; its terms are the pod's own, tightened.
	Required  *corev1.NodeSelector             `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`
	Preferred []corev1.PreferredSchedulingTerm `json:"preferredDuringSchedulingIgnoredDuringExecution"`
}

// encodeLift renders the patch of a decision.
func encodeLift(d decision) ([]byte, error) {
	patch := liftPatch{Metadata: patchMetadata{UID: d.pod.UID, ResourceVersion: d.pod.ResourceVersion}}
	for _, g := range d.lift {
		patch.Spec.SchedulingGates = append(patch.Spec.SchedulingGates, gateDeletion{Directive: "delete", Name: g.policy.GateName})
	}
	if d.steer != nil {
		patch.Spec.Affinity = &patchAffinity{NodeAffinity: patchNodeAffinity{
			Preferred: append(slices.Clone(d.pod.Preferred), *d.steer),
		}}
		if d.require != "" {
			patch.Spec.Affinity.NodeAffinity.Required = &corev1.NodeSelector{NodeSelectorTerms: gates.RequireLabel(d.pod.Required, d.require)}
		}
	}
	out, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("encode patch of pod %s: %w", d.pod.Key(), err)
	}
	return out, nil
}

// refused says whether the API server will not have the patch as it is: a right is missing, or an admission policy or a
// webhook says no.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// result is what became of a patch.
type result int

const (
	failed   result = iota // an error that may heal
	lifted                 // the gates are gone by our hand
	gone                   // the pod is deleted, or another one has its name
	conflict               // somebody wrote the pod in between: read it again
)

// lifter writes to pods.
type lifter struct{ pods metadata.Getter }

// lift carries out a decision in one patch. The answer is read as metadata only: nobody needs the rest.
//
//	result    error  meaning
//	lifted    nil    done
//	gone      nil    nothing to do any more
//	conflict  nil    read the pod again and decide anew
//	failed    set    try again later
func (l lifter) lift(ctx context.Context, d decision) (result, error) {
	patch, err := encodeLift(d)
	if err != nil {
		return failed, err
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	_, err = l.pods.Namespace(d.pod.Namespace).Patch(ctx, d.pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case err == nil:
		return lifted, nil
	case apierrors.IsNotFound(err), anotherObject(err):
		return gone, nil
	case apierrors.IsConflict(err):
		return conflict, nil
	default:
		return failed, fmt.Errorf("lift gates of pod %s: %w", d.pod.Key(), err)
	}
}

// anotherObject says whether a patch was refused because the object of that name has another UID now. The API server calls
// that Invalid, field metadata.uid. Source: kube-apiserver 1.37.2, tried.
func anotherObject(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || !apierrors.IsInvalid(err) || status.ErrStatus.Details == nil {
		return false
	}
	return slices.ContainsFunc(status.ErrStatus.Details.Causes, func(cause metav1.StatusCause) bool {
		return cause.Field == "metadata.uid"
	})
}
