package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/prepull/learn"
)

// writer is the controllers' field manager.
const writer = "headstart-controller"

// forget deletes the ConfigMaps in which the controllers keep what they must not lose.
func (c *Cluster) forget(ctx context.Context) error {
	list, err := c.Core.CoreV1().ConfigMaps(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the controllers' ConfigMaps: %w", err)
	}
	var errs []error
	for i := range list.Items {
		name := list.Items[i].Name
		if !kept(&list.Items[i]) {
			continue
		}
		if err := c.Core.CoreV1().ConfigMaps(c.Namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete ConfigMap %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// kept says whether a ConfigMap is the controllers': one that they alone have written. A name that begins like ours is
// anybody's to choose.
func kept(cm *corev1.ConfigMap) bool {
	if cm.Name == ledgerName || cm.Labels[learn.Label] != "" {
		return true
	}
	foreign := func(f metav1.ManagedFieldsEntry) bool { return f.Manager != writer }
	return len(cm.ManagedFields) > 0 && !slices.ContainsFunc(cm.ManagedFields, foreign)
}
