package agent

import (
	"strings"

	kubeletapis "k8s.io/kubelet/pkg/apis"

	"headstart.dev/readiness"
)

// refusedLabel says why the kubelet may not register with a label, or "". The kubelet exits at start over a label of the
// kubernetes.io and k8s.io domains that is not on its list, and NodeRestriction refuses node-restriction labels.
// Source: kubernetes cmd/kubelet/app/options/options.go@v1.37.2 ValidateKubeletFlags.
func refusedLabel(key string) string {
	namespace, _, qualified := strings.Cut(key, "/")
	if !qualified {
		return ""
	}
	if namespace == readiness.Domain {
		return "labels under " + readiness.Domain + "/ are the controller's: a node that sets them could attract pods"
	}
	kubernetes := namespace == "kubernetes.io" || strings.HasSuffix(namespace, ".kubernetes.io") ||
		namespace == "k8s.io" || strings.HasSuffix(namespace, ".k8s.io")
	if !kubernetes || kubeletapis.IsKubeletLabel(key) {
		return ""
	}
	return "the kubelet exits over a label of this domain: use a domain of your own, or one of " +
		strings.Join(kubeletapis.KubeletLabels(), ", ")
}
