package readiness

import (
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions are what rules read of a Node's conditions, in their order: a quarter of the size of the API's, because nodes
// have twenty and a controller holds those of thousands.
type Conditions []PackedCondition

// PackedCondition is a condition without its reason and message; times are whole seconds, as the API has them. Equal
// conditions are equal by ==.
type PackedCondition struct {
	kind                  unique.Handle[corev1.NodeConditionType]
	status                unique.Handle[corev1.ConditionStatus]
	heartbeat, transition int64 // seconds since 1970; 0 where there is none
}

// PackConditions packs; nil stays nil.
func PackConditions(in []corev1.NodeCondition) Conditions {
	if in == nil {
		return nil
	}
	out := make(Conditions, len(in))
	for i := range in {
		c := &in[i]
		out[i] = PackedCondition{
			kind: unique.Make(c.Type), status: unique.Make(c.Status),
			heartbeat: seconds(c.LastHeartbeatTime), transition: seconds(c.LastTransitionTime),
		}
	}
	return out
}

// Type is the condition's.
func (p *PackedCondition) Type() corev1.NodeConditionType { return p.kind.Value() }

// Find returns the condition of that type, or nil.
func (c Conditions) Find(t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range c {
		if p := &c[i]; p.kind.Value() == t {
			return &corev1.NodeCondition{
				Type: t, Status: p.status.Value(), LastHeartbeatTime: timeOf(p.heartbeat), LastTransitionTime: timeOf(p.transition),
			}
		}
	}
	return nil
}

// Same finds the condition of p's type, or nil. It looks at the index first: conditions keep their order.
func (c Conditions) Same(p *PackedCondition, index int) *PackedCondition {
	if index < len(c) && c[index].kind == p.kind {
		return &c[index]
	}
	for i := range c {
		if c[i].kind == p.kind {
			return &c[i]
		}
	}
	return nil
}

func seconds(t metav1.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func timeOf(seconds int64) metav1.Time {
	if seconds == 0 {
		return metav1.Time{}
	}
	return metav1.Unix(seconds, 0)
}
