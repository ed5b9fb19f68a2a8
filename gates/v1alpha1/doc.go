// Package v1alpha1 holds the API types of gates and warm pools in the group headstart.dev: GatePolicy says when a
// scheduling gate may be lifted, WarmPool keeps capacity ready. The package holds types and their defaults only; what
// they mean is decided by packages gates and gates/warmpool.
//
// +kubebuilder:object:generate=true
// +groupName=headstart.dev
package v1alpha1
