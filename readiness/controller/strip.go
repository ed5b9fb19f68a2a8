package controller

import (
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
)

// keptAnnotations are those that the engine reads.
var keptAnnotations = map[string]bool{
	readiness.AnnotationReadiness: true,
	readiness.AnnotationRule:      true,
	readiness.AnnotationRuleGuide: true,
	readiness.AnnotationTimeline:  true,
}

// stripped is a Node as the engine keeps it: without conditions, which are beside it.
type stripped struct {
	*corev1.Node

	conditions readiness.Conditions
	// refused are the types of conditions by which the agent says that it may not run a probe.
	refused []corev1.NodeConditionType
}

// stripNode keeps the fields of a Node that are in use: of the 20 to 40 KB of a real one, about 2. Labels are shared with
// the other followers of the watch; strings that most nodes share are kept once.
func stripNode(in *corev1.Node) stripped {
	out := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: in.Name, UID: in.UID, ResourceVersion: in.ResourceVersion,
		CreationTimestamp: in.CreationTimestamp, DeletionTimestamp: in.DeletionTimestamp,
		Labels: in.Labels, OwnerReferences: in.OwnerReferences,
	}}
	if in.Annotations != nil {
		// Not nil even when nothing is kept: a patch must know whether there are annotations at all.
		out.Annotations = map[string]string{}
	}
	for k, v := range in.Annotations {
		if keptAnnotations[k] || strings.HasPrefix(k, readiness.BootstrapPrefix) {
			out.Annotations[k] = v
		}
	}
	out.Spec.Taints = in.Spec.Taints
	out.Status.NodeInfo.BootID = in.Status.NodeInfo.BootID
	out.Status.Allocatable = in.Status.Allocatable
	return stripped{Node: out, conditions: readiness.PackConditions(in.Status.Conditions), refused: refused(in.Status.Conditions)}
}

func refused(conditions []corev1.NodeCondition) (types []corev1.NodeConditionType) {
	for i := range conditions {
		if c := &conditions[i]; c.Reason == readiness.ReasonExecNotAllowed && c.Status != corev1.ConditionTrue {
			types = append(types, corev1.NodeConditionType(intern(string(c.Type))))
		}
	}
	return types
}

func intern(s string) string { return unique.Make(s).Value() }

func internMap(in map[string]string) map[string]string {
	if in == nil {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[intern(k)] = intern(v)
	}
	return out
}
