package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

const (
	controllerName = "headstart-controller"
	agentName      = "headstart-agent"
	// workloads selects the pods of both.
	workloads = "app.kubernetes.io/name in (" + controllerName + "," + agentName + ")"
	// stopPeriod is the time between two looks at pods that are to go.
	stopPeriod = 500 * time.Millisecond
	pageSize   = 500
)

// Cluster is what CleanUp works on.
type Cluster struct {
	Core    kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace is where the controller and the agents run.
	Namespace string
	Log       logr.Logger
}

// CleanUp stops the controller and the agents' DaemonSet, then takes their taints, labels, annotations and conditions off
// every node and lifts the gates that policies name, so that nothing waits for somebody who will not come. Taints and labels
// of others stay: ours are those that a rule names, or the controller's own ledger. What stands on a node says nothing of
// it, for a node can write that. Our objects (rules, policies) stay too: without a controller they do nothing. Done twice, the second time
// writes nothing. It goes on past a node or pod that it cannot write, and returns what went wrong.
func CleanUp(ctx context.Context, c Cluster) error {
	if err := c.stop(ctx); err != nil {
		return err
	}
	own, err := c.owned(ctx)
	if err != nil {
		return err
	}
	return errors.Join(c.releaseNodes(ctx, own), c.liftGates(ctx), c.forget(ctx))
}

// forget deletes the ConfigMaps in which the controllers keep what they must not lose. Helm knows none of them.
func (c *Cluster) forget(ctx context.Context) error {
	list, err := c.Core.CoreV1().ConfigMaps(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by!=Helm"})
	if err != nil {
		return fmt.Errorf("list the controllers' ConfigMaps: %w", err)
	}
	var errs []error
	for i := range list.Items {
		name := list.Items[i].Name
		if !strings.HasPrefix(name, "headstart-") {
			continue
		}
		if err := c.Core.CoreV1().ConfigMaps(c.Namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete ConfigMap %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// stop deletes what would put back what we take away, and returns when it is gone.
func (c *Cluster) stop(ctx context.Context) error {
	foreground := metav1.DeletePropagationForeground
	options := metav1.DeleteOptions{PropagationPolicy: &foreground}
	for name, remove := range map[string]func() error{
		agentName:      func() error { return c.Core.AppsV1().DaemonSets(c.Namespace).Delete(ctx, agentName, options) },
		controllerName: func() error { return c.Core.AppsV1().Deployments(c.Namespace).Delete(ctx, controllerName, options) },
	} {
		if err := remove(); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	ticker := time.NewTicker(stopPeriod)
	defer ticker.Stop()
	for {
		pods, err := c.Core.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: workloads, Limit: 1})
		if err != nil {
			return fmt.Errorf("list our pods: %w", err)
		}
		if len(pods.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until our pods are gone: %s is still there: %w", pods.Items[0].Name, ctx.Err())
		case <-ticker.C:
		}
	}
}

// each visits the objects of a resource of a group; none where its CRD is not installed.
func (c *Cluster) each(ctx context.Context, group, resource string, visit func(*unstructured.Unstructured)) error {
	of := schema.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: resource}
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := c.Dynamic.Resource(of).List(ctx, options)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", resource, err)
		}
		for i := range page.Items {
			visit(&page.Items[i])
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}
