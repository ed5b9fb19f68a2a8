package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/agent/probe"
	"headstart.dev/agent/timeline"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// state is everything that the agent knows now. It is safe for concurrent use, and is the publisher's Source.
type state struct {
	recorder *timeline.Recorder
	metrics  *metrics
	// changed is called, outside the lock, after every change that a publisher may want; progress after those that only
	// who waits for the end may want.
	changed, progress func()
	// horizon is the earliest moment that can belong to this boot.
	horizon time.Time
	// resumed is when an agent first ran in this boot, where it was an earlier process than this one: what that one has
	// published stands until this one has looked.
	resumed time.Time

	// onNode are told of every state of the Node.
	onNode []func(*corev1.Node)

	mu        sync.Mutex
	images    map[string]prepull.ImageStatus
	inventory throttled
	probes    []Prober
	results   map[string]probe.Result
	observed  map[phaseKey]bool
	gone      map[string]bool
	// ruled are the conditions of probes that rules want. They are published like all others, and nobody's boot waits for
	// them: what is configured on the node is in its config.
	ruled     map[string]bool
	nodeUID   types.UID
	published bool
	accepted  bool
}

var _ nodestatus.Source = (*state)(nil)

func newState(cfg Config, probes []Prober, recorder *timeline.Recorder, m *metrics) *state {
	s := &state{
		recorder: recorder, metrics: m, changed: func() {}, progress: func() {}, probes: probes,
		images: map[string]prepull.ImageStatus{}, results: map[string]probe.Result{}, observed: map[phaseKey]bool{}, gone: map[string]bool{},
		ruled: map[string]bool{},
	}
	for _, image := range cfg.Images {
		s.images[image.Ref] = prepull.ImageStatus{Image: image, Name: image.Ref, State: prepull.StatePending}
	}
	return s
}

// observeImage takes one change of an image. It is the puller's Observer.
func (s *state) observeImage(image prepull.ImageStatus) {
	s.mu.Lock()
	before, wanted := s.images[image.Ref]
	if !wanted {
		s.mu.Unlock()
		return // the last word of a pull that was stopped
	}
	s.images[image.Ref] = image
	worth := before.State != image.State || before.Error != image.Error
	ready := evaluateImages(slices.Collect(maps.Values(s.images))).Status == corev1.ConditionTrue
	s.mu.Unlock()
	if !worth {
		return
	}
	_, booted := s.recorder.Timeline().Find(timeline.Published, "")
	// An image that was there already has no engine, and was no part of this boot; nor is what comes later.
	if !booted && !image.Started.IsZero() && (image.Engine != "" || image.State == prepull.StatePulling) {
		s.recorder.Record(timeline.Phase{Name: timeline.Images, Start: image.Started})
		s.recorder.Record(timeline.Phase{Name: timeline.Image, Detail: image.Name, Start: image.Started, End: image.Finished, Stages: stages(image.Stages)})
	}
	if ready && !booted {
		s.recorder.Begin(timeline.Images, "")
		s.recorder.End(timeline.Images, "")
	}
	s.changed()
}

// stages are those of a pull as the timeline has them.
func stages(all []prepull.Stage) []timeline.Stage {
	var out []timeline.Stage
	for _, s := range all {
		out = append(out, timeline.Stage{Name: s.Name, Seconds: s.Duration.Seconds()})
	}
	return out
}

// observeProbe takes one settled result.
func (s *state) observeProbe(p Prober, result probe.Result) {
	s.mu.Lock()
	s.results[p.Condition] = result
	s.mu.Unlock()
	switch result.Status {
	case probe.True:
		s.recorder.End(timeline.Probe, p.Name)
	case probe.NotApplicable:
		s.recorder.Forget(timeline.Probe, p.Name)
	case probe.False, probe.Unknown:
		s.recorder.Begin(timeline.Probe, p.Name) // a phase that is known keeps its start
	}
	s.changed()
}

// addProbe takes up a probe that a rule wants.
func (s *state) addProbe(p Prober) {
	s.mu.Lock()
	s.probes = append(slices.Clone(s.probes), p)
	delete(s.gone, p.Condition)
	s.ruled[p.Condition] = true
	s.mu.Unlock()
	s.changed()
}

// removeProbe gives up a probe that no rule wants any more, and its condition.
func (s *state) removeProbe(condition string) {
	s.mu.Lock()
	s.probes = slices.DeleteFunc(slices.Clone(s.probes), func(p Prober) bool { return p.Condition == condition })
	delete(s.results, condition)
	delete(s.ruled, condition)
	s.gone[condition] = true
	s.mu.Unlock()
	s.changed()
}

// conditions is what the node is, evaluated; in the order of the config, images first.
func (s *state) conditions() []nodestatus.Condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []nodestatus.Condition{evaluateImages(slices.Collect(maps.Values(s.images)))}
	for _, p := range s.probes {
		result, looked := s.results[p.Condition]
		if !looked {
			result = probe.Result{Status: probe.Unknown, Reason: probe.ReasonPending, Message: "not looked at yet"}
		}
		if result.Status == probe.NotApplicable {
			continue
		}
		condition := nodestatus.Condition{
			Type: p.Condition, Status: corev1.ConditionStatus(result.Status), Reason: result.Reason, Message: result.Message,
		}
		if !looked {
			condition.Unless = s.resumed
		}
		out = append(out, condition)
	}
	return out
}

// Desired implements nodestatus.Source. The moment of the first publication with everything True is written into the
// timeline by the patch that makes it so: a second patch only to tell of the first would be one too many.
func (s *state) Desired(at time.Time) nodestatus.Desired {
	want := nodestatus.Desired{Conditions: s.conditions(), Annotations: map[string]string{}, Lazy: map[string]string{}}
	s.mu.Lock()
	images := slices.Collect(maps.Values(s.images))
	want.Gone = slices.Sorted(maps.Keys(s.gone))
	for _, p := range s.probes {
		if s.results[p.Condition].Status == probe.NotApplicable {
			want.Gone = append(want.Gone, p.Condition)
		}
	}
	s.mu.Unlock()
	if text, err := inventory(images).Encode(); err == nil {
		want.Annotations[readiness.AnnotationImages] = s.inventory.next(text, want.Conditions[0].Status, at, s.changed)
	}
	boot := s.recorder.Timeline()
	if _, done := boot.Find(timeline.Published, ""); !done && s.complete(want.Conditions) {
		boot.Add(timeline.Phase{Name: timeline.Published, Start: at, End: at})
	}
	if text, err := boot.Compact(); err == nil {
		want.Lazy[readiness.AnnotationTimeline] = text
	}
	return want
}

// Published implements nodestatus.Source.
func (s *state) Published(want nodestatus.Desired, at time.Time) {
	complete := s.complete(want.Conditions)
	if complete {
		s.recorder.Record(timeline.Phase{Name: timeline.Published, Start: at, End: at})
	}
	s.mu.Lock()
	differs := s.published != complete
	s.published = complete
	s.accepted = true
	s.mu.Unlock()
	if differs {
		s.progress()
	}
}

// NodeSeen implements nodestatus.Source.
func (s *state) NodeSeen(node *corev1.Node) {
	if node == nil {
		return
	}
	for _, tell := range s.onNode {
		tell(node)
	}
	s.mu.Lock()
	replaced := s.nodeUID != "" && s.nodeUID != node.UID
	s.nodeUID = node.UID
	s.mu.Unlock()
	registered := node.CreationTimestamp.Time
	if known, ok := s.recorder.Timeline().Find(timeline.Registered, ""); replaced || ok && !known.Start.Equal(registered) {
		s.recorder.Drop(timeline.Registered, timeline.NodeReady, timeline.Published)
	}
	s.mark(timeline.Registered, registered)
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			s.mark(timeline.NodeReady, c.LastTransitionTime.Time)
		}
	}
}

// mark records a moment of this boot; one of an earlier boot is left out.
func (s *state) mark(name timeline.Name, at time.Time) {
	if !at.Before(s.horizon) {
		s.recorder.Record(timeline.Phase{Name: name, Start: at, End: at})
	}
}

// settled says whether everything that is configured is there, and what is not or never will be.
func (s *state) settled(mustPublish bool) (done bool, failure error) {
	complete := s.complete(s.conditions())
	s.mu.Lock()
	defer s.mu.Unlock()
	done = complete && (s.published || !mustPublish)
	for _, image := range byPriority(slices.Collect(maps.Values(s.images))) {
		switch {
		case here(image.State):
		case image.State == prepull.StateFailed && image.Required:
			return false, &imageError{ref: image.Ref, cause: image.Error}
		case image.State != prepull.StateFailed:
			done = false
		}
	}
	return done, nil
}

// imageError is a required image that will never be there.
type imageError struct{ ref, cause string }

func (e *imageError) Error() string { return "pull image " + e.ref + ": " + e.cause }

// complete says whether everything that the config names is True.
func (s *state) complete(conditions []nodestatus.Condition) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(conditions, func(c nodestatus.Condition) bool {
		return c.Status != corev1.ConditionTrue && !s.ruled[c.Type]
	})
}

type phaseKey struct {
	name   timeline.Name
	detail string
}

// observePhases counts each phase that has ended, once: its length, and of a moment how long after the start of the boot
// it came.
func (s *state) observePhases() {
	s.mu.Lock()
	defer s.mu.Unlock()
	boot := s.recorder.Timeline()
	for _, p := range boot.Phases {
		key := phaseKey{p.Name, p.Detail}
		if p.Running() || s.observed[key] {
			continue
		}
		s.observed[key] = true
		since := p.Start
		if p.Moment() {
			since = boot.Zero()
		}
		s.metrics.phase.WithLabelValues(string(p.Name)).Observe(p.End.Sub(since).Seconds())
	}
}

// reported says whether the API server holds everything, or did once.
func (s *state) reported() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}
