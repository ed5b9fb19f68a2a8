package controller

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/learn"
)

const (
	// saveEvery is how often a window that has changed is stored: what a crash loses is counted again from the pods that
	// still run.
	saveEvery = time.Minute
	// saveTick is how soon the first change after a while is stored.
	saveTick = 5 * time.Second
)

// remember has the window of a policy that learns loaded, and that of one that does not deleted. The caller holds mu.
func (c *Controller) remember(ctx context.Context, p *policy) {
	if p.obj.Spec.Learn == nil {
		if p.window != nil {
			p.memory = memory{dropped: true}
		}
		return
	}
	if p.window != nil && p.window.Span() != p.span() {
		if data, err := p.window.Encode(time.Now()); err == nil {
			if p.window, err = learn.Decode(data, p.span()); err != nil {
				c.log.Error(err, "change the window of what was learned", "policy", p.obj.Name)
			}
			p.unsaved = true
		}
	}
	if p.window == nil && !p.loading {
		p.loading = true
		go c.load(ctx, p)
	}
}

// load reads a window, then has all pods looked at again: those that run now are its first starts.
func (c *Controller) load(ctx context.Context, p *policy) {
	c.mu.Lock()
	obj, span := p.obj, p.span()
	c.mu.Unlock()
	w, stored, damage, err := c.store.load(ctx, obj, span)
	if damage != nil {
		c.log.Info("what was learned cannot be read and starts afresh", "policy", obj.Name, "cause", damage.Error())
	}
	if err != nil && ctx.Err() == nil {
		c.log.Error(err, "load what was learned")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.loading = false
	if err != nil {
		return
	}
	p.memory = memory{window: w, stored: stored, onNode: map[string]map[string]bool{}}
	if c.learning != nil {
		c.learning()
		c.learning = nil
	}
	c.targets = true
	c.nudge()
}

// followLearning runs the watch of pods exactly while a policy needs it. The caller holds mu.
func (c *Controller) followLearning(ctx context.Context, needed bool) {
	switch {
	case !needed && c.learning != nil:
		c.learning()
		c.learning = nil
	case needed && c.learning == nil:
		ctx, stop := context.WithCancel(ctx)
		c.learning = stop
		c.starts = newStarts()
		go c.followStarts(ctx, c.starts)
	}
}

// followStarts watches pods for those policies that learn, until ctx ends. What a pod started with is its status' to say,
// which only its node writes; Events, which anybody may write, are not looked at.
func (c *Controller) followStarts(ctx context.Context, s *starts) {
	pods := cache.NewFilteredListWatchFromClient(c.client.CoreV1().RESTClient(), "pods", "", func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
		o.LabelSelector = notOfAWarmPool
	})
	feed.Run(ctx, "pods", pods, &corev1.Pod{}, feed.Handler[*corev1.Pod]{
		Strip: stripPod,
		Replace: func(list []*corev1.Pod) {
			c.mu.Lock()
			defer c.mu.Unlock()
			s.keep(list)
			for _, pod := range list {
				c.learn(s, pod, true)
			}
		},
		Set: func(pod *corev1.Pod) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.learn(s, pod, false)
		},
		Delete: func(pod *corev1.Pod) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.learn(s, pod, false)
			delete(s.counted, pod.UID)
		},
	})
}

// learn counts the starts of a pod. Those of a first list that are not later than what is stored were counted by the
// process before this one. The caller holds mu.
func (c *Controller) learn(s *starts, pod *corev1.Pod, list bool) {
	n := c.fleet.nodes[pod.Spec.NodeName]
	if n == nil {
		return
	}
	for _, one := range s.observe(pod, time.Now()) {
		for _, p := range c.byName {
			if p.window == nil || !p.selector.Matches(n.set()) {
				continue
			}
			p.count(one, list && !one.at.After(p.window.Through()))
			c.rankSoon(p.rankDue())
		}
	}
}

func (c *Controller) saveRegularly(ctx context.Context) {
	tick := time.NewTicker(saveTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.save(ctx, saveEvery)
		}
	}
}

// save stores the windows that have changed and were not stored within the interval, and deletes those of policies that
// learn no more.
func (c *Controller) save(ctx context.Context, interval time.Duration) {
	now := time.Now()
	c.mu.Lock()
	var due []*policy
	for _, p := range c.byName {
		if (p.unsaved || p.dropped) && now.Sub(p.saved) >= interval {
			p.saved = now
			due = append(due, p)
		}
	}
	c.mu.Unlock()
	for _, p := range due {
		if err := c.saveOne(ctx, p); err != nil && ctx.Err() == nil {
			c.log.Error(err, "store what was learned")
		}
	}
}

func (c *Controller) saveOne(ctx context.Context, p *policy) error {
	c.mu.Lock()
	obj, stored, drop := p.obj, p.stored, p.dropped && p.window == nil
	p.unsaved, p.dropped = false, false
	var data []byte
	var err error
	if p.window != nil {
		data, err = p.window.Encode(time.Now())
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case drop:
		err = c.store.forget(ctx, obj.Name)
	case data != nil:
		data, err = c.store.save(ctx, obj, data, stored)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		p.unsaved, p.dropped = p.window != nil, drop
		return err
	}
	p.stored = data
	return nil
}
