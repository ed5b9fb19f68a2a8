package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
)

// claimQueue is how many deletions may wait; a node that finds it full asks again with its next event.
const claimQueue = 64

const claimTimeout = 10 * time.Second

// claim is a NodeClaim that is to be deleted because its node was not ready in time.
type claim struct {
	node *corev1.Node
	ref  metav1.OwnerReference
}

// claimDeleter deletes NodeClaims, never Nodes: Karpenter drains and replaces.
type claimDeleter struct {
	log    logr.Logger
	engine *Engine
	client metadata.Interface
	events *recorder
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
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	gv, err := schema.ParseGroupVersion(c.ref.APIVersion)
	if err != nil {
		return fmt.Errorf("delete NodeClaim %q: %w", c.ref.Name, err)
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
