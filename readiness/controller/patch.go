package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/readiness"
)

// operation is one step of a JSON patch (RFC 6902). A test with a nil value holds where the path is absent.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// test must keep its value even where that is null.
type test struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// buildPatch renders a change of a Node as a JSON patch whose tests make it a compare-and-swap: it applies to this
// Node's UID, and only while the whole taint array and our record are those that the change was computed from. Other
// writers (Karpenter, EBS CSI, Cilium, the kubelet) replace the taint array as a whole, so it is tested as a whole;
// a resourceVersion would do too, but loses to every heartbeat.
func buildPatch(node *corev1.Node, c *readiness.Change) ([]byte, error) {
	ops := []any{test{"test", "/metadata/uid", node.UID}}
	if c.TaintsChanged {
		ops = append(ops, taintOps(node.Spec.Taints, c.Taints)...)
	}
	ops = append(ops, annotationOps(node, c)...)
	ops = append(ops, labelOps(node, c)...)
	out, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("encode patch of node %q: %w", node.Name, err)
	}
	return out, nil
}

func taintOps(have, want []corev1.Taint) []any {
	const path = "/spec/taints"
	if len(have) == 0 {
		return []any{test{"test", path, nil}, operation{"add", path, want}}
	}
	ops := []any{test{"test", path, have}}
	if len(want) == 0 {
		return append(ops, operation{Op: "remove", Path: path})
	}
	return append(ops, operation{"replace", path, want})
}

func annotationOps(node *corev1.Node, c *readiness.Change) []any {
	const parent = "/metadata/annotations"
	want := annotations(c)
	if len(want) == 0 {
		return nil
	}
	if node.Annotations == nil {
		return []any{test{"test", parent, nil}, operation{"add", parent, want}}
	}
	var ops []any
	if c.RecordChanged {
		var have any
		if old, ok := node.Annotations[readiness.AnnotationReadiness]; ok {
			have = old
		}
		ops = append(ops, test{"test", parent + "/" + escape(readiness.AnnotationReadiness), have})
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		ops = append(ops, operation{"add", parent + "/" + escape(key), want[key]})
	}
	return ops
}

// annotations are those that the change sets.
func annotations(c *readiness.Change) map[string]string {
	want := map[string]string{}
	maps.Copy(want, c.Annotations)
	if c.RecordChanged {
		want[readiness.AnnotationReadiness] = c.Record
	}
	return want
}

func labelOps(node *corev1.Node, c *readiness.Change) []any {
	const parent = "/metadata/labels"
	if node.Labels == nil && len(c.SetLabels) > 0 {
		labels := map[string]string{}
		for _, l := range c.SetLabels {
			labels[l] = "true"
		}
		return []any{test{"test", parent, nil}, operation{"add", parent, labels}}
	}
	var ops []any
	for _, l := range c.SetLabels {
		ops = append(ops, operation{"add", parent + "/" + escape(l), "true"})
	}
	for _, l := range c.RemoveLabels {
		if value, there := node.Labels[l]; there {
			// Whoever gives it another value meanwhile keeps it.
			ops = append(ops, test{"test", parent + "/" + escape(l), value})
		}
		ops = append(ops, operation{Op: "remove", Path: parent + "/" + escape(l)})
	}
	return ops
}

// escape writes a key as one step of a JSON pointer (RFC 6901).
func escape(key string) string { return pointerStep.Replace(key) }

var pointerStep = strings.NewReplacer("~", "~0", "/", "~1")

// applied is node as the patch of c leaves it.
func applied(node *corev1.Node, c *readiness.Change) *corev1.Node {
	out := *node
	if c.TaintsChanged {
		out.Spec.Taints = c.Taints
	}
	for key, value := range annotations(c) {
		out.Annotations = withKey(out.Annotations, key, value)
	}
	for _, l := range c.SetLabels {
		out.Labels = withKey(out.Labels, l, "true")
	}
	for _, l := range c.RemoveLabels {
		out.Labels = withKey(out.Labels, l, "")
		delete(out.Labels, l)
	}
	return &out
}

func withKey(in map[string]string, key, value string) map[string]string {
	out := make(map[string]string, len(in)+1)
	maps.Copy(out, in)
	out[key] = value
	return out
}
