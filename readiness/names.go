package readiness

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness/v1alpha1"
)

// TaintPrefixClusterAutoscaler is the prefix under which Cluster Autoscaler (>= 1.29) treats a taint as a startup taint.
// Source: kubernetes/autoscaler cluster-autoscaler/utils/taints/taints.go.
const TaintPrefixClusterAutoscaler = "startup-taint.cluster-autoscaler.kubernetes.io/"

// taintDomains are those whose taints belong to Kubernetes' controllers and Karpenter; labelDomains add those of clouds
// whose controllers label nodes by them.
var (
	taintDomains = []string{"kubernetes.io", "k8s.io", "karpenter.sh"}
	labelDomains = append(slices.Clone(taintDomains), "karpenter.k8s.aws", "eks.amazonaws.com")
)

// labelProvisioning is the label of ProvisioningRequests on their nodes.
const labelProvisioning = Domain + "/provisioning-request"

// startupTaint says whether autoscalers know the key for that of a startup taint, which nobody but a readiness controller
// takes off.
func startupTaint(key string) bool {
	return strings.HasPrefix(key, TaintPrefix) || strings.HasPrefix(key, TaintPrefixClusterAutoscaler)
}

// checkTaintKey refuses keys that are others' to use, and those of labels by which the rule selects nodes: a taint that
// goes by the name of a label is there to stay.
func checkTaintKey(key string, selectors []string) error {
	if domain, ours := inDomain(key, taintDomains); ours && !startupTaint(key) {
		return fmt.Errorf("spec.taint.key: taints of %s belong to others: write %s<name>, %s<name> or a key of your own domain", domain, TaintPrefix, TaintPrefixClusterAutoscaler)
	}
	if slices.Contains(selectors, key) {
		return fmt.Errorf("spec.taint.key: %s is a label that the rule selects nodes by, and such a taint is there to stay: write another key", key)
	}
	return nil
}

// checkReadyLabel refuses labels that are others' to set, since the controller takes the label off again.
func checkReadyLabel(field, key string, selectors []string) error {
	domain, theirs := inDomain(key, labelDomains)
	_, derived := derivedLabels[key]
	switch {
	case key == "":
		return nil
	case theirs:
		return fmt.Errorf("%s: labels of %s belong to others: write a key of your own domain or of %s, such as %s/ebs-ready", field, domain, Domain, Domain)
	case derived, key == labelProvisioning, key == AnnotationRule, strings.HasPrefix(key, LabelPrepullPrefix):
		return fmt.Errorf("%s: Headstart keeps %s for itself: write another name, such as %s/ebs-ready", field, key, Domain)
	case slices.Contains(selectors, key):
		return fmt.Errorf("%s: %s is a label that the rule selects by: write another key", field, key)
	}
	return nil
}

// inDomain says whether the key's prefix is one of the domains or beneath it, and which.
func inDomain(key string, domains []string) (domain string, in bool) {
	prefix, _, prefixed := strings.Cut(key, "/")
	if !prefixed {
		return "", false
	}
	for _, d := range domains {
		if prefix == d || strings.HasSuffix(prefix, "."+d) {
			return d, true
		}
	}
	return "", false
}

// selectorKeys are the labels that the rule's selectors use, of nodes and of pods.
func selectorKeys(spec *v1alpha1.NodeReadinessRuleSpec) []string {
	var keys []string
	add := func(s *metav1.LabelSelector) {
		if s == nil {
			return
		}
		for key := range s.MatchLabels {
			keys = append(keys, key)
		}
		for i := range s.MatchExpressions {
			keys = append(keys, s.MatchExpressions[i].Key)
		}
	}
	add(spec.NodeSelector)
	for i := range spec.RequiredDaemonSets {
		add(spec.RequiredDaemonSets[i].Selector)
	}
	for i := range spec.OptionalDaemonSets {
		add(spec.OptionalDaemonSets[i].Selector)
	}
	return keys
}

// checkNames refuses taint keys and labels that the rule may not use.
func checkNames(spec *v1alpha1.NodeReadinessRuleSpec, taint *corev1.Taint) error {
	selectors := selectorKeys(spec)
	if err := checkTaintKey(taint.Key, selectors); err != nil {
		return err
	}
	for i := range spec.OptionalDaemonSets {
		if err := checkReadyLabel(fmt.Sprintf("spec.optionalDaemonSets[%d].readyLabel", i), spec.OptionalDaemonSets[i].ReadyLabel, selectors); err != nil {
			return err
		}
	}
	return nil
}
