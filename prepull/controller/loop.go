package controller

import (
	"context"
	"slices"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"headstart.dev/prepull/budget"
	"headstart.dev/prepull/controller/keychain"
	"headstart.dev/prepull/controller/resolve"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness/health"
)

// idle is how long the loop sleeps when nothing is due.
const idle = time.Hour

// retarget works out what all policies want, and has the sources and names followed that they need.
func (c *Controller) retarget(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	due := c.targets || !c.rankAt.IsZero() && !now.Before(c.rankAt)
	if !due || !c.knowPolicies || !c.knowNodes {
		return
	}
	c.targets, c.rankAt = false, time.Time{}
	keys := map[sourceKey]bool{}
	learns := false
	for _, p := range c.byName {
		for _, source := range p.obj.Spec.FromWorkloads {
			keys[keyOf(source)] = true
		}
		learns = learns || p.obj.Spec.Learn != nil
		c.remember(ctx, p)
	}
	c.workloads.want(ctx, keys)
	c.followLearning(ctx, learns)

	names := map[string]wanted{}
	var refresh []string
	for name, p := range c.byName {
		p.size(c.lookups.get)
		if p.rank(now); p.stale {
			c.rankSoon(p.rankDue())
		}
		p.retarget(c.workloads)
		c.lookFor(p, names)
		if c.refresh[name] {
			for _, want := range p.wanted {
				refresh = append(refresh, want.name)
			}
		}
		p.soon(now)
	}
	clear(c.refresh)
	c.lookups.want(names, refresh)
}

// lookFor adds what is to be looked up for a policy to what is for others. The caller holds mu.
func (c *Controller) lookFor(p *policy, names map[string]wanted) {
	arch := commonArch(c.fleet.match(p.selector))
	for _, want := range p.wanted {
		every, refs := p.interval(), p.refs()
		if other, twice := names[want.name]; twice {
			every, refs = min(every, other.every), join(other.refs, refs)
		}
		registry, nodes := seed(p.obj, want.name)
		names[want.name] = wanted{arch: arch, every: every, refs: refs, seed: registry, reported: nodes}
	}
	for _, name := range p.unmeasured() {
		if _, twice := names[name]; !twice {
			names[name] = wanted{arch: arch, every: measureEvery, refs: p.refs()}
		}
	}
}

// rankSoon asks for a ranking at the given time or earlier. The caller holds mu.
func (c *Controller) rankSoon(at time.Time) {
	if c.rankAt.IsZero() || at.Before(c.rankAt) {
		c.rankAt = at
		c.nudge()
	}
}

// seed is what the status says of an image, by its registry or by nodes: a registry that is away when the controller
// starts must not lose it.
func seed(obj *v1alpha1.PrepullPolicy, name string) (registry, nodes resolve.Image) {
	for _, img := range obj.Status.Images {
		switch {
		case img.Image != name:
		case img.Reported:
			nodes = resolve.Image{Digest: img.Digest, Layers: []budget.Layer{{Digest: img.Image, Bytes: img.Bytes}}}
		case img.Digest != "":
			registry = resolve.Image{Digest: img.Digest, Layers: []budget.Layer{{Digest: img.Digest, Bytes: img.Bytes}}}
		}
	}
	return registry, nodes
}

// refs are the pull Secrets that the policy names.
func (p *policy) refs() keychain.Refs {
	var out keychain.Refs
	for _, ref := range p.obj.Spec.ImagePullSecrets {
		out.Secrets = append(out.Secrets, types.NamespacedName(ref))
	}
	for _, ref := range p.obj.Spec.ServiceAccounts {
		out.ServiceAccounts = append(out.ServiceAccounts, types.NamespacedName(ref))
	}
	return out
}

// join joins the Secrets of two policies that want one image.
func join(a, b keychain.Refs) keychain.Refs {
	return keychain.Refs{Secrets: union(a.Secrets, b.Secrets), ServiceAccounts: union(a.ServiceAccounts, b.ServiceAccounts)}
}

func union(a, b []types.NamespacedName) []types.NamespacedName {
	out := slices.Clone(a)
	for _, name := range b {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// evaluate writes the statuses that are due, and returns when the next one is.
func (c *Controller) evaluate(ctx context.Context, step *health.Step) time.Time {
	for _, w := range c.dueWrites() {
		c.write(ctx, w)
		step.Moved()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := time.Now().Add(idle)
	for _, p := range c.byName {
		next = sooner(next, p.due)
	}
	return sooner(next, c.rankAt)
}

// sooner returns the earlier of two times; zero is never.
func sooner(next, at time.Time) time.Time {
	if !at.IsZero() && at.Before(next) {
		return at
	}
	return next
}

// statusWrite is a policy with the status that it is to have.
type statusWrite struct {
	p   *policy
	obj *v1alpha1.PrepullPolicy
	// trouble says that this write is the first to call the policy invalid: the watch may bring it before the answer does.
	trouble bool
}

// dueWrites evaluates the policies that are due.
func (c *Controller) dueWrites() (writes []statusWrite) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.knowPolicies || !c.knowNodes {
		return nil
	}
	now := time.Now()
	for _, p := range c.byName {
		if p.due.IsZero() || p.due.After(now) {
			continue
		}
		p.due = time.Time{}
		if until := p.hold(now, c.lookups.get); !until.IsZero() {
			p.due = until
			c.targets = c.targets || p.obj.Spec.Learn != nil && p.window == nil
			continue
		}
		if w := c.assess(p, now); w != nil {
			writes = append(writes, *w)
		}
	}
	return writes
}

// assess returns the status to write for a policy; nil when the one that is there says it, or will do for now. The
// caller holds mu.
func (c *Controller) assess(p *policy, now time.Time) *statusWrite {
	status, again := p.evaluate(c.fleet, c.lookups.get, c.limits, now)
	for _, img := range status.Images {
		if img.Bytes == 0 && img.Nodes > 0 {
			c.lookups.hasten(img.Image)
		}
	}
	if !again.IsZero() {
		p.soon(again)
	}
	p.evaluated = now
	if apiequality.Semantic.DeepEqual(status, p.obj.Status) {
		return nil
	}
	if from := p.countsFrom(); now.Before(from) && countsOnly(status, p.obj.Status) {
		p.soon(from)
		return nil
	}
	obj := p.obj.DeepCopy()
	obj.Status = status
	p.written = now
	return &statusWrite{p, obj, invalid(obj) && !invalid(p.obj)}
}

// write stores a status. One that is refused is evaluated again, from what the watch has brought until then.
func (c *Controller) write(ctx context.Context, w statusWrite) {
	p, obj := w.p, w.obj
	stored, err := c.policies.UpdateStatus(ctx, obj)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		if w.trouble {
			c.events.invalid(stored)
		}
		// The watch may be ahead already.
		if p.obj.Generation == stored.Generation && p.obj.ResourceVersion == obj.ResourceVersion {
			p.obj = stored
			if p.setSteering(time.Now()) {
				c.steerAll()
			}
		}
		c.log.V(2).Info("status written", "policy", klog.KObj(obj), "ready", obj.Status.Nodes.Ready)
	case ctx.Err() != nil, apierrors.IsNotFound(err):
	default:
		if !apierrors.IsConflict(err) {
			c.log.Error(err, "write status")
		}
		p.soon(time.Now().Add(writeInterval))
	}
}

func invalid(obj *v1alpha1.PrepullPolicy) bool {
	return apimeta.IsStatusConditionFalse(obj.Status.Conditions, v1alpha1.ConditionAccepted)
}
