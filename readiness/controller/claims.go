package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
)

// claimQueue is how many deletions may wait; a node that finds it full asks again with its next event.
const claimQueue = 64

const claimTimeout = 10 * time.Second

// claim is a NodeClaim that is to be deleted because its node was not ready in time.
type claim struct {
	node *corev1.Node
	ref  metav1.OwnerReference
	rule types.UID
}

// claimDeleter deletes NodeClaims, never Nodes: Karpenter drains and replaces.
type claimDeleter struct {
	log    logr.Logger
	engine *Engine
	client metadata.Interface
	// objects reads NodeClaims whole.
	objects dynamic.Interface
	events  *recorder
	// note writes down what is about to be deleted: a controller that comes next must know how many were.
	note func(context.Context) error
}

// Run deletes until ctx ends.
func (d *claimDeleter) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-d.engine.claims:
			if err := d.delete(ctx, c); err != nil {
				d.log.Error(err, "deleting NodeClaim failed", "node", c.node.Name)
				d.engine.claimFailed(c)
				continue
			}
			d.log.Info("deleted NodeClaim of a node that was not ready in time", "node", c.node.Name, "nodeClaim", c.ref.Name)
			d.events.offer(nodeEvent(c.node, corev1.EventTypeWarning, reasonTimedOut,
				fmt.Sprintf("not ready in time: NodeClaim %s is deleted, Karpenter replaces the node", c.ref.Name)))
		}
	}
}

// delete is idempotent: a NodeClaim that is gone, or another one of the same name, is as good as deleted.
func (d *claimDeleter) delete(ctx context.Context, c claim) error {
	if err := d.note(ctx); err != nil {
		return fmt.Errorf("delete NodeClaim %q: %w", c.ref.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	gv, err := schema.ParseGroupVersion(c.ref.APIVersion)
	if err != nil {
		return fmt.Errorf("delete NodeClaim %q: %w", c.ref.Name, err)
	}
	theirs, err := d.owns(ctx, gv, &c)
	if err != nil || !theirs {
		return err
	}
	err = d.client.Resource(gv.WithResource("nodeclaims")).Delete(ctx, c.ref.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &c.ref.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete NodeClaim %q: %w", c.ref.Name, err)
	}
	return nil
}

// claimFailed lets the node ask again, after a while.
func (e *Engine) claimFailed(c claim) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.nodes[c.node.Name]; n != nil && n.claimDeleted == c.ref.UID {
		n.claimDeleted = ""
		e.wakes.set(n, e.now().Add(maxBackoff))
	}
}

// owns says whether the NodeClaim says of itself that the node is its own. The owner reference that led to it is on the
// Node, which a node may write: it must not have another's machine deleted by naming that.
func (d *claimDeleter) owns(ctx context.Context, gv schema.GroupVersion, c *claim) (bool, error) {
	found, err := d.objects.Resource(gv.WithResource("nodeclaims")).Get(ctx, c.ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read NodeClaim %q: %w", c.ref.Name, err)
	}
	name, _, _ := unstructured.NestedString(found.Object, "status", "nodeName")
	machine, _, _ := unstructured.NestedString(found.Object, "status", "providerID")
	// One that has neither is no machine yet.
	if name == c.node.Name || name == "" && machine == "" {
		return true, nil
	}
	return false, fmt.Errorf("delete NodeClaim %q: %w", c.ref.Name, errNotItsNode)
}

// errNotItsNode says that a Node names a NodeClaim that is another node's.
var errNotItsNode = errors.New("its status names another node than the one that refers to it")
