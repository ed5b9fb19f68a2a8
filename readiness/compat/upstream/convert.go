package upstream

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// Finalizer is what a rule carries while a controller has it in hand: a deleted rule goes when its taints have gone.
// Source: kubernetes-sigs/node-readiness-controller internal/controller/helper.go@v0.5.0.
const Finalizer = "readiness.node.x-k8s.io/cleanup-taints"

// LeaseName is the lease by which upstream's controllers elect their leader, in a namespace of the installer's choice.
// Source: kubernetes-sigs/node-readiness-controller cmd/main.go@v0.5.0.
const LeaseName = "ba65f13e.readiness.node.x-k8s.io"

// Convert makes the engine's form. Upstream knows no deadline, and holds nodes that are older than the rule like any
// other. It fails with an error that names the field where the API server let something through that has no meaning.
func Convert(in *NodeReadinessRule) (*readiness.Rule, error) {
	if in.Unreadable != "" {
		return nil, errors.New(in.Unreadable)
	}
	spec := &in.Spec
	selector, err := metav1.LabelSelectorAsSelector(&spec.NodeSelector)
	if err != nil {
		return nil, fmt.Errorf("spec.nodeSelector: %w", err)
	}
	r := &readiness.Rule{
		Name: in.Name, UID: in.UID, Form: readiness.FormUpstream, Generation: in.Generation, Created: in.CreationTimestamp.Time,
		Continuous:      spec.EnforcementMode == EnforcementModeContinuous,
		Selector:        selector,
		AnyOf:           spec.ConditionPolicy == ConditionPolicyAnyOf,
		Taint:           corev1.Taint{Key: spec.Taint.Key, Value: spec.Taint.Value, Effect: spec.Taint.Effect},
		OnTimeout:       v1alpha1.TimeoutHold,
		EnforceExisting: true,
		DryRun:          spec.DryRun,
	}
	for _, c := range spec.Conditions {
		r.Conditions = append(r.Conditions, readiness.Condition{
			Type: corev1.NodeConditionType(c.Type), Required: c.RequiredStatus, Default: c.DefaultStatus,
		})
	}
	return r, nil
}
