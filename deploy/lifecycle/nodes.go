package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// releaseNodes takes what is ours off every node.
func (c *Cluster) releaseNodes(ctx context.Context, own *owned) error {
	var errs []error
	cleaned := 0
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := c.Core.CoreV1().Nodes().List(ctx, options)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("list nodes: %w", err))...)
		}
		for i := range page.Items {
			changed, err := c.releaseNode(ctx, &page.Items[i], own)
			if err != nil {
				errs = append(errs, fmt.Errorf("clean node %s: %w", page.Items[i].Name, err))
			}
			if changed {
				cleaned++
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			c.Log.Info("nodes cleaned", "nodes", cleaned)
			return errors.Join(errs...)
		}
	}
}

// releaseNode writes until nobody else has written in between: others replace whole taint lists too.
func (c *Cluster) releaseNode(ctx context.Context, node *corev1.Node, own *owned) (bool, error) {
	for {
		patch, err := metadataPatch(node, own)
		if err != nil {
			return false, err
		}
		status, err := conditionPatch(node)
		if err != nil || patch == nil && status == nil {
			return false, err
		}
		if patch != nil {
			_, err = c.Core.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		}
		if err == nil && status != nil {
			_, err = c.Core.CoreV1().Nodes().PatchStatus(ctx, node.Name, status)
		}
		switch {
		case err == nil:
			return true, nil
		case apierrors.IsNotFound(err):
			return false, nil
		case !apierrors.IsConflict(err):
			return false, err
		}
		if node, err = c.Core.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{}); err != nil {
			return false, err
		}
	}
}

// metadataPatch takes away our taints, labels and annotations; nil when there are none. It holds the resourceVersion: a
// list of taints is replaced whole.
func metadataPatch(node *corev1.Node, own *owned) ([]byte, error) {
	metadata := map[string]any{}
	if labels := ours(node.Labels, readyLabels(node, own)...); len(labels) > 0 {
		metadata["labels"] = labels
	}
	if annotations := ours(node.Annotations); len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	patch := map[string]any{"metadata": metadata}
	taints := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return own.taints[readiness.TaintID(&t)] })
	if len(taints) < len(node.Spec.Taints) {
		patch["spec"] = map[string]any{"taints": taints}
	} else if len(metadata) == 0 {
		return nil, nil
	}
	metadata["resourceVersion"] = node.ResourceVersion
	out, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("write patch: %w", err)
	}
	return out, nil
}

// conditionPatch takes away our conditions; nil when there are none.
func conditionPatch(node *corev1.Node) ([]byte, error) {
	var conditions []map[string]string
	for _, c := range node.Status.Conditions {
		if strings.HasPrefix(string(c.Type), readiness.Domain+"/") {
			conditions = append(conditions, map[string]string{"$patch": "delete", "type": string(c.Type)})
		}
	}
	if conditions == nil {
		return nil, nil
	}
	out, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions}})
	if err != nil {
		return nil, fmt.Errorf("write patch: %w", err)
	}
	return out, nil
}

// ours are the keys of our domain and of prepull policies, and those of extra that are there, each set to null. The binding of a node to a rule is
// the user's: a NodePool template carries it.
func ours(have map[string]string, extra ...string) map[string]any {
	out := map[string]any{}
	for key := range have {
		ours := strings.HasPrefix(key, readiness.Domain+"/") && key != readiness.AnnotationRule
		if ours || strings.HasPrefix(key, readiness.LabelPrepullPrefix) || slices.Contains(extra, key) {
			out[key] = nil
		}
	}
	return out
}

// readyLabels are the labels on the node that rules name, that have our value, and that the controller noted as put there.
func readyLabels(node *corev1.Node, own *owned) []string {
	record, err := readiness.DecodeRecord(node)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(record.Labels, func(label string) bool { return !own.labels[label] || node.Labels[label] != "true" })
}
