package controller

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness/nodewatch"
)

func (c *Controller) followPolicies(ctx context.Context) {
	c.policies.Run(ctx, feed.Handler[*v1alpha1.PrepullPolicy]{
		Replace: func(list []*v1alpha1.PrepullPolicy) {
			c.mu.Lock()
			gone := map[string]bool{}
			for name := range c.byName {
				gone[name] = true
			}
			for _, obj := range list {
				delete(gone, obj.Name)
				c.setPolicy(obj)
			}
			for name := range gone {
				delete(c.byName, name)
			}
			c.knowPolicies, c.targets = true, true
			c.steerAll()
			c.mu.Unlock()
			c.nudge()
		},
		Set: func(obj *v1alpha1.PrepullPolicy) {
			c.mu.Lock()
			c.setPolicy(obj)
			c.mu.Unlock()
			c.nudge()
		},
		Delete: func(obj *v1alpha1.PrepullPolicy) {
			c.mu.Lock()
			delete(c.byName, obj.Name)
			c.targets = true
			c.steerAll()
			c.mu.Unlock()
			c.nudge()
		},
	})
}

// setPolicy takes a policy over. The caller holds mu.
func (c *Controller) setPolicy(obj *v1alpha1.PrepullPolicy) {
	now := time.Now()
	p := c.byName[obj.Name]
	if p == nil || p.obj.UID != obj.UID {
		p = &policy{}
		c.byName[obj.Name] = p
	}
	changed := p.obj == nil || p.obj.Generation != obj.Generation
	p.setObject(obj, now)
	if p.setSteering(now) {
		c.steerAll()
	}
	if !changed {
		return
	}
	c.targets = true
	c.refresh[obj.Name] = true
	p.soon(now)
}

// followNodes takes nodes from a watch that has not started yet. Before the controller leads nobody looks at them, but
// they are there when it does.
func (c *Controller) followNodes(nodes *nodewatch.Watch) {
	nodewatch.Follow(nodes, nodewatch.Handler[*metav1.PartialObjectMetadata]{
		Read: stripNode,
		Replace: func(list []*metav1.PartialObjectMetadata) {
			c.mu.Lock()
			gone := map[string]bool{}
			for name := range c.fleet.nodes {
				gone[name] = true
			}
			for _, obj := range list {
				delete(gone, obj.Name)
				if n := c.fleet.nodes[obj.Name]; n != nil {
					n.version = "" // a list is the truth even where versions went back: an etcd that was restored
				}
				c.setNode(obj)
			}
			for name := range gone {
				c.deleteNode(name)
			}
			c.knowNodes = true
			c.steerAll()
			c.mu.Unlock()
			c.nudge()
		},
		Set: func(obj *metav1.PartialObjectMetadata) {
			c.mu.Lock()
			c.setNode(obj)
			c.mu.Unlock()
		},
		Delete: func(name string) {
			c.mu.Lock()
			c.deleteNode(name)
			c.mu.Unlock()
		},
	})
}

// setNode takes a node over. The caller holds mu.
func (c *Controller) setNode(obj *metav1.PartialObjectMetadata) {
	changed, err := c.fleet.set(obj)
	if err != nil {
		c.log.Info("node published an inventory that cannot be read", "node", obj.Name, "cause", err.Error())
	}
	if changed {
		c.steering.Add(obj.Name)
		c.countsChanged()
	}
}

func (c *Controller) deleteNode(name string) {
	for _, p := range c.byName {
		delete(p.onNode, name)
	}
	if c.fleet.delete(name) {
		c.countsChanged()
	}
}

// countsChanged asks for the counts of all policies; the loop wakes when they are due. The caller holds mu.
func (c *Controller) countsChanged() {
	now := time.Now()
	wake := false
	for _, p := range c.byName {
		before := p.due
		p.countsDue(now)
		wake = wake || before != p.due
	}
	if wake {
		c.nudge()
	}
}
