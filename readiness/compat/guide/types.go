// Package guide reads the rule form of the guide that started the project, nodereadiness.k8s.io/v1alpha1
// NodeReadinessRule: the schema of headstart.dev/v1alpha1 under another group, so that the guide's manifests work as
// they are. Types and conversion only.
package guide

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// GroupVersion is nodereadiness.k8s.io/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "nodereadiness.k8s.io", Version: "v1alpha1"}

// NodeReadinessRule is the native rule under the guide's group.
type NodeReadinessRule v1alpha1.NodeReadinessRule

// UnmarshalJSON decodes the rule alone, as the native one does.
func (r *NodeReadinessRule) UnmarshalJSON(data []byte) error {
	return (*v1alpha1.NodeReadinessRule)(r).UnmarshalJSON(data)
}

// NodeReadinessRuleList is a list of rules.
type NodeReadinessRuleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []NodeReadinessRule `json:"items"`
}

// AddToScheme registers the guide's kind.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &NodeReadinessRule{}, &NodeReadinessRuleList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// DeepCopyObject copies the rule.
func (r *NodeReadinessRule) DeepCopyObject() runtime.Object {
	if r == nil {
		return nil
	}
	return (*NodeReadinessRule)((*v1alpha1.NodeReadinessRule)(r).DeepCopy())
}

// DeepCopyObject copies the list.
func (l *NodeReadinessRuleList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	out := &NodeReadinessRuleList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		out.Items = append(out.Items, NodeReadinessRule(*(*v1alpha1.NodeReadinessRule)(&l.Items[i]).DeepCopy()))
	}
	return out
}

// Convert makes the engine's form.
func Convert(in *NodeReadinessRule) (*readiness.Rule, error) {
	r, err := readiness.FromNative((*v1alpha1.NodeReadinessRule)(in))
	if err != nil {
		return nil, err
	}
	r.Form = readiness.FormGuide
	return r, nil
}
