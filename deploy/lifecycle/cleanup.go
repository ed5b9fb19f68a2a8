package lifecycle

import (
	"context"
	"errors"
	"fmt"
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
	// workloads selects the Deployment and the DaemonSets, and their pods: by label, because an overlay may rename them.
	workloads = "app.kubernetes.io/part-of=headstart,app.kubernetes.io/component in (agent,controller)"
	// stopPeriod is the time between two looks at pods that are to go, stopTimeout how long they are waited for: one on a node
	// whose kubelet is dead stays for ever, and writes nothing.
	stopPeriod  = 500 * time.Millisecond
	stopTimeout = time.Minute
	pageSize    = 500
)

// Cluster is what CleanUp works on.
type Cluster struct {
	Core    kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace is where the controller and the agents run.
	Namespace string
	// Taints are keys of taints (NoSchedule) of rules that may be gone already.
	Taints []string
	// UnlessInstalled leaves everything as it is while a controller or an agent is installed in Namespace. Otherwise they are
	// deleted first.
	UnlessInstalled bool
	// DeleteCRDs deletes the CRDs of our group at the end, and with them all rules, policies and pools.
	DeleteCRDs bool
	Log        logr.Logger
}

// CleanUp stops the controller and the agents' DaemonSets, then takes their taints, labels, annotations and conditions off
// every node and lifts the gates that policies name, so that nothing waits for somebody who will not come. Taints and labels
// of others stay: ours are those that a rule names, or the controller's own ledger. What stands on a node says nothing of
// it, for a node can write that. Our objects (rules, policies) stay too: without a controller they do nothing. Done twice, the second time
// writes nothing. It goes on past a node or pod that it cannot write, and returns what went wrong.
func CleanUp(ctx context.Context, c Cluster) error {
	if c.UnlessInstalled {
		name, err := c.installed(ctx)
		if err != nil {
			return err
		}
		if name != "" {
			c.Log.Info("nothing is cleaned up: Headstart is installed", "namespace", c.Namespace, "workload", name)
			return nil
		}
	} else if err := c.stop(ctx); err != nil {
		return err
	}
	if err := c.awaitPods(ctx); err != nil {
		return err
	}
	own, err := c.owned(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(c.releaseNodes(ctx, own), c.liftGates(ctx))
	if err != nil {
		return err // what the controllers kept is needed once more
	}
	err = c.forget(ctx)
	if c.DeleteCRDs {
		err = errors.Join(err, deleteCRDs(ctx, c.Dynamic))
	}
	return err
}

// installed names a Deployment or DaemonSet of ours that is there to stay; "" where there is none.
func (c *Cluster) installed(ctx context.Context) (string, error) {
	options := metav1.ListOptions{LabelSelector: workloads}
	deployments, err := c.Core.AppsV1().Deployments(c.Namespace).List(ctx, options)
	if err != nil {
		return "", fmt.Errorf("look for the controller: %w", err)
	}
	for i := range deployments.Items {
		if deployments.Items[i].DeletionTimestamp == nil {
			return deployments.Items[i].Name, nil
		}
	}
	daemonSets, err := c.Core.AppsV1().DaemonSets(c.Namespace).List(ctx, options)
	if err != nil {
		return "", fmt.Errorf("look for the agents: %w", err)
	}
	for i := range daemonSets.Items {
		if daemonSets.Items[i].DeletionTimestamp == nil {
			return daemonSets.Items[i].Name, nil
		}
	}
	return "", nil
}

// stop deletes what would put back what we take away.
func (c *Cluster) stop(ctx context.Context) error {
	foreground := metav1.DeletePropagationForeground
	remove, options := metav1.DeleteOptions{PropagationPolicy: &foreground}, metav1.ListOptions{LabelSelector: workloads}
	daemonSets, err := c.Core.AppsV1().DaemonSets(c.Namespace).List(ctx, options)
	if err != nil {
		return fmt.Errorf("look for the agents: %w", err)
	}
	for i := range daemonSets.Items {
		name := daemonSets.Items[i].Name
		if err := c.Core.AppsV1().DaemonSets(c.Namespace).Delete(ctx, name, remove); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	deployments, err := c.Core.AppsV1().Deployments(c.Namespace).List(ctx, options)
	if err != nil {
		return fmt.Errorf("look for the controller: %w", err)
	}
	for i := range deployments.Items {
		name := deployments.Items[i].Name
		if err := c.Core.AppsV1().Deployments(c.Namespace).Delete(ctx, name, remove); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	return nil
}

// awaitPods returns when our pods are gone, or when they have had time enough.
func (c *Cluster) awaitPods(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
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
		case <-wait.Done():
			c.Log.Info("a pod does not go, cleaning up all the same", "pod", pods.Items[0].Name, "node", pods.Items[0].Spec.NodeName)
			return nil
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
