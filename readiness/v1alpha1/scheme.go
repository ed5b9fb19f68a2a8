package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is headstart.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "headstart.dev", Version: "v1alpha1"}

// AddToScheme registers this package's kinds. Packages of the other domains register theirs in the same group.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &NodeReadinessRule{}, &NodeReadinessRuleList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
