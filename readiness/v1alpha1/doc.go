// Package v1alpha1 holds the API of readiness rules, headstart.dev/v1alpha1 NodeReadinessRule: what a node must have
// before its startup taint goes. Types only; the engine's form of a rule is readiness.Rule.
//
// +groupName=headstart.dev
// +kubebuilder:object:generate=true
package v1alpha1
