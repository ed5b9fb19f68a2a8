package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/prepull/turn"
	"headstart.dev/readiness"
)

const (
	// steerWorkers is how many Nodes are labelled at once: nobody waits for a label for long, and the readiness rules'
	// writes come first.
	steerWorkers = 16
	// steerInterval is the shortest time between two writes of one Node's labels.
	steerInterval = time.Second
	// steerGrace is for how long a node keeps the label after the policy's list has changed. Most nodes take over a new
	// list within it, and are then not written twice for nothing; a pod that is led to one meanwhile joins its pull.
	steerGrace = 30 * time.Second
	// steerMost bounds the wait after a failed write; it doubles from steerInterval.
	steerMost = 30 * time.Second
)

const (
	fieldManager = "headstart-controller"
	labelled     = "true"
)

// basis is what the label of a policy depends on beside the nodes.
type basis struct {
	generation, observed, members int64
	list                          string
}

func (p *policy) basis() basis {
	status := &p.obj.Status
	b := basis{generation: p.obj.Generation, observed: status.ObservedGeneration, members: turn.Last, list: fingerprint(pulledOf(status.Images))}
	if status.Turn != nil {
		b.members = status.Turn.Members
	}
	return b
}

// leads says whether the node is to carry the policy's label. When that is not settled the label stays as it is, until
// the time that is returned where time settles it.
func (p *policy) leads(n *member, f *fleet, now time.Time) (yes, settled bool, until time.Time) {
	if p.obj.DeletionTimestamp != nil || !p.selector.Matches(n.set()) || turn.Place(string(p.obj.UID), n.name) > p.steering.members {
		return false, true, time.Time{}
	}
	if p.steering.observed < p.steering.generation {
		return false, false, time.Time{} // its list is being made
	}
	if len(p.wants) == 0 {
		return false, true, time.Time{}
	}
	if f.index.Has(n.name, p.wants...) {
		return true, true, time.Time{}
	}
	if until = p.listed.Add(steerGrace); now.Before(until) {
		return false, false, until
	}
	return false, true, time.Time{}
}

// relabel returns the labels that a node lacks ("true") or must lose (nil), and when to look again although nothing
// changes; zero: never. Whatever is under the prefix and of no policy goes, whoever has put it there. The caller holds mu.
func (c *Controller) relabel(n *member, now time.Time) (change map[string]any, again time.Time) {
	change = map[string]any{}
	for key := range n.labels {
		if strings.HasPrefix(key, readiness.LabelPrepullPrefix) {
			change[key] = nil
		}
	}
	for name, p := range c.byName {
		key := readiness.PrepullLabel(name)
		yes, settled, until := p.leads(n, c.fleet, now)
		if !until.IsZero() && (again.IsZero() || until.Before(again)) {
			again = until
		}
		switch {
		case !settled, yes && n.labels[key] == labelled:
			delete(change, key)
		case yes:
			change[key] = labelled
		}
	}
	return change, again
}

// steerAll has the labels of all nodes looked at. The caller holds mu.
func (c *Controller) steerAll() {
	for name := range c.fleet.nodes {
		c.steering.Add(name)
	}
}

// steer writes labels until ctx ends.
func (c *Controller) steer(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range steerWorkers {
		wg.Go(func() {
			for {
				name, shutdown := c.steering.Get()
				if shutdown {
					return
				}
				err := c.steerNode(ctx, name)
				c.steering.Done(name)
				if err == nil || ctx.Err() != nil {
					c.steering.Forget(name)
					continue
				}
				c.log.V(1).Info("labels not written, will try again", "node", name, "attempt", c.steering.NumRequeues(name)+1, "cause", err.Error())
				c.steering.AddRateLimited(name)
			}
		})
	}
	<-ctx.Done()
	c.steering.ShutDown()
}

// steerNode writes the labels of one node, if they differ.
func (c *Controller) steerNode(ctx context.Context, name string) error {
	defer c.work.Begin().End()
	now := time.Now()
	c.mu.Lock()
	n := c.fleet.nodes[name]
	if n == nil || !c.knowPolicies || !c.knowNodes {
		c.mu.Unlock()
		return nil
	}
	change, again := c.relabel(n, now)
	if next := n.steered.Add(steerInterval); len(change) > 0 && now.Before(next) {
		change, again = nil, next
	} else if len(change) > 0 {
		n.steered = now
	}
	c.mu.Unlock()
	if !again.IsZero() {
		c.steering.AddAfter(name, again.Sub(now))
	}
	if len(change) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": change}})
	if err != nil {
		return fmt.Errorf("encode labels of node %q: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stored, err := c.labels.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("label node %q: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fleet.nodes[name] == n && !outdated(stored, n) {
		n.labels, n.version = stored.Labels, stored.ResourceVersion
	}
	return nil
}
