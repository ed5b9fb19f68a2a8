// Package v1alpha1 holds the API of prepulling, headstart.dev/v1alpha1 PrepullPolicy: which images which nodes should
// have before a pod asks for them. Types only: prepull/controller turns a policy into a list of images with digests in
// its status, and the agents of the matching nodes pull that list.
//
// +groupName=headstart.dev
// +kubebuilder:object:generate=true
package v1alpha1
