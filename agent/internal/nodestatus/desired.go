package nodestatus

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Condition is what the agent knows of one condition. Times are the publisher's.
type Condition struct {
	Type    string
	Status  corev1.ConditionStatus
	Reason  string
	Message string
	// Unless is set for what is not known yet: a Node on which the condition was written since then keeps what it says.
	Unless time.Time
}

// keeps reports whether a Node's condition is to stay although the agent does not know it yet.
func (c Condition) keeps(have *corev1.NodeCondition) bool {
	return !c.Unless.IsZero() && have != nil && !have.LastHeartbeatTime.Time.Before(c.Unless.Truncate(time.Second))
}

// Desired is all that the agent wants on its Node.
type Desired struct {
	Conditions []Condition
	// Gone are types of conditions that the agent has published and no longer stands for.
	Gone []string
	// Annotations by key. A key that is absent is left alone.
	Annotations map[string]string
	// Lazy holds annotations that are worth no patch of their own: they ride along with the next one, or go alone after
	// a while.
	Lazy map[string]string
}

// difference is what a Node lacks of a Desired.
type difference struct {
	conditions  []Condition
	gone        []string
	annotations map[string]string
	// urgent is false when only words and lazy annotations differ.
	urgent bool
	// words says that some condition's message differs and nothing else of it: a failure that is tried again may name another
	// port or another time each time.
	words bool
}

func (d difference) empty() bool { return len(d.conditions)+len(d.gone)+len(d.annotations) == 0 }

// diff compares by type and by key; the order of the Node's conditions is another's business.
func diff(want Desired, node *corev1.Node) difference {
	out := difference{annotations: map[string]string{}}
	for _, condition := range want.Conditions {
		out.compare(condition, find(node, condition.Type))
	}
	for _, conditionType := range want.Gone {
		if find(node, conditionType) != nil {
			out.gone = append(out.gone, conditionType)
		}
	}
	for key, value := range want.Annotations {
		if have, ok := node.Annotations[key]; !ok || have != value {
			out.annotations[key] = value
		}
	}
	out.urgent = out.urgent || len(out.gone)+len(out.annotations) > 0
	for key, value := range want.Lazy {
		if have, ok := node.Annotations[key]; !ok || have != value {
			out.annotations[key] = value
		}
	}
	return out
}

func (d *difference) compare(want Condition, have *corev1.NodeCondition) {
	switch {
	case want.keeps(have):
		return
	case have == nil || have.Status != want.Status || have.Reason != want.Reason:
		d.urgent = true
	case have.Message != want.Message:
		d.words = true
	default:
		return
	}
	d.conditions = append(d.conditions, want)
}

func find(node *corev1.Node, conditionType string) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if string(node.Status.Conditions[i].Type) == conditionType {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// patch renders the difference as a strategic-merge patch of the status subresource. Conditions merge by type, so those
// of the kubelet are never touched. The UID makes the server refuse it for a Node that has replaced this one.
func (d difference) patch(node *corev1.Node, now metav1.Time) ([]byte, error) {
	type metadata struct {
		UID         types.UID         `json:"uid"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	type status struct {
		Conditions []any `json:"conditions,omitempty"`
	}
	body := struct {
		Metadata metadata `json:"metadata"`
		Status   status   `json:"status,omitzero"`
	}{Metadata: metadata{UID: node.UID, Annotations: d.annotations}}
	for _, want := range d.conditions {
		out := corev1.NodeCondition{
			Type: corev1.NodeConditionType(want.Type), Status: want.Status, Reason: want.Reason, Message: want.Message,
			LastHeartbeatTime: now, LastTransitionTime: now,
		}
		if have := find(node, want.Type); have != nil && have.Status == want.Status {
			out.LastTransitionTime = have.LastTransitionTime
		}
		body.Status.Conditions = append(body.Status.Conditions, out)
	}
	for _, conditionType := range d.gone {
		body.Status.Conditions = append(body.Status.Conditions, map[string]string{"$patch": "delete", "type": conditionType})
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode patch of node %s: %w", node.Name, err)
	}
	return raw, nil
}
