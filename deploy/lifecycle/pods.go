package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// liftGates takes the gates that policies name off every pod that waits.
func (c *Cluster) liftGates(ctx context.Context) error {
	gates := map[string]bool{}
	err := c.each(ctx, readiness.Domain, "gatepolicies", func(policy *unstructured.Unstructured) {
		if name, _, _ := unstructured.NestedString(policy.Object, "spec", "gateName"); name != "" {
			gates[name] = true
		}
	})
	if err != nil || len(gates) == 0 {
		return err
	}
	var errs []error
	lifted := 0
	options := metav1.ListOptions{Limit: pageSize, FieldSelector: "spec.nodeName="}
	for {
		page, err := c.Core.CoreV1().Pods("").List(ctx, options)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("list pods: %w", err))...)
		}
		for i := range page.Items {
			patch, err := gatePatch(&page.Items[i], gates)
			if err == nil && patch != nil {
				lifted++
				_, err = c.Core.CoreV1().Pods(page.Items[i].Namespace).Patch(ctx, page.Items[i].Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			}
			// Invalid: another pod has the name now; it is not one of this list.
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
				errs = append(errs, fmt.Errorf("lift gates of pod %s/%s: %w", page.Items[i].Namespace, page.Items[i].Name, err))
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			c.Log.Info("gates lifted", "pods", lifted)
			return errors.Join(errs...)
		}
	}
}

// gatePatch deletes our gates by name, for this very pod; nil when it has none.
func gatePatch(pod *corev1.Pod, gates map[string]bool) ([]byte, error) {
	var remove []map[string]string
	for _, gate := range pod.Spec.SchedulingGates {
		if gates[gate.Name] {
			remove = append(remove, map[string]string{"$patch": "delete", "name": gate.Name})
		}
	}
	if remove == nil {
		return nil, nil
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "spec": map[string]any{"schedulingGates": remove}})
}
