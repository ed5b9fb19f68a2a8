// Package upstream reads the rule form of the Kubernetes SIG's node-readiness-controller,
// readiness.node.x-k8s.io/v1alpha1 NodeReadinessRule, so that a cluster can move over from it and back. Types, names,
// conversion and the rendering of a rule's status only; all of it is pure.
//
// The schema is that of v0.5.0 and of what was merged after it up to September 2026 (conditionPolicy, and the validations
// that its webhook used to do), with the same messages. Source: facts of kubernetes-sigs/node-readiness-controller
// api/v1alpha1 and internal/controller, no code of it.
//
// +groupName=readiness.node.x-k8s.io
// +versionName=v1alpha1
// +kubebuilder:object:generate=true
package upstream
