package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"headstart.dev/agent/policy"
	"headstart.dev/prepull"
	"headstart.dev/prepull/feed"
)

// followPolicies lets PrepullPolicies add to the config's images.
func (a *Agent) followPolicies() {
	a.policies = policy.New(a.config.Images, func(images []prepull.Image) {
		a.log.Info("policies changed what this node should have", "images", len(images))
		a.state.want(images)
		a.puller.SetImages(images)
	})
	a.state.onNode = append(a.state.onNode, func(node *corev1.Node) { a.policies.SetNode(node.Name, node.Labels) })
}

// policyWatch returns the function that moves the watch of policies to another connection, or with nil ends it.
func (a *Agent) policyWatch(ctx context.Context) func(*rest.Config) {
	var running sync.WaitGroup
	stop := func() {}
	return func(cfg *rest.Config) {
		stop()
		running.Wait()
		stop = func() {}
		if cfg == nil || a.policies == nil {
			return
		}
		source, err := feed.NewPolicies(cfg)
		if err != nil {
			a.log.Error(err, "follow prepull policies")
			return
		}
		var watchCtx context.Context
		watchCtx, stop = context.WithCancel(ctx)
		running.Go(func() { a.policies.Run(watchCtx, source) })
	}
}

// want replaces the images that the node waits for and tells of. What is new is pending at once, so that the condition
// never calls a node ready that was just asked for more.
func (s *state) want(images []prepull.Image) {
	s.mu.Lock()
	before := maps.Clone(s.images)
	clear(s.images)
	for _, image := range images {
		status, known := before[image.Ref]
		if !known {
			status = prepull.ImageStatus{Name: image.Ref, State: prepull.StatePending}
		}
		status.Image = image
		s.images[image.Ref] = status
	}
	s.mu.Unlock()
	s.changed()
}

// inventoryInterval is how often the inventory may change: a Node object is sent to every watcher.
const inventoryInterval = time.Second

// throttled passes a text on at most once in inventoryInterval. It belongs to one goroutine.
type throttled struct {
	text  string
	ready corev1.ConditionStatus
	since time.Time
	timer *time.Timer
}

// next returns the text, or the one before it while that is too new; then again is called when it no longer is. A change
// of headstart.dev/ImagesReady needs a patch anyway, and takes the text along.
func (t *throttled) next(text string, ready corev1.ConditionStatus, at time.Time, again func()) string {
	if text == t.text && !t.since.IsZero() {
		return text
	}
	if left := inventoryInterval - at.Sub(t.since); left > 0 && ready == t.ready {
		if t.timer != nil {
			t.timer.Stop()
		}
		t.timer = time.AfterFunc(left, again)
		return t.text
	}
	t.text, t.ready, t.since = text, ready, at
	return text
}
