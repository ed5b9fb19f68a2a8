package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool"
	"headstart.dev/readiness/health"
)

const (
	// reconcileTimeout bounds all calls of one reconcile.
	reconcileTimeout = 30 * time.Second
	// unavailableRetry is how often a backend that lacks something is tried again: a person has to act first.
	unavailableRetry = time.Minute
	// statusPeriod is the least time between two writes of one status.
	statusPeriod = time.Second
)

type reconciler struct {
	client          client.Client
	live            client.Reader
	now             func() time.Time
	model           *model
	backends        map[v1alpha1.WarmPoolBackend]backend
	metrics         *metrics
	events          recorder
	log             logr.Logger
	prepullPolicies bool
	work            health.Work
	// feed has the watches of those kinds of workloads that pools name.
	feed *feed

	mu      sync.Mutex
	written map[types.NamespacedName]*written
}

// written is what was last written for a pool.
type written struct {
	mu         sync.Mutex // held by the one that has the pool in hand; guards all below but uid
	uid        types.UID
	generation int64 // that the model's pool was made from
	statusAt   time.Time
	stateAt    time.Time
	stateKey   string
	stateSize  int32
	trouble    string
}

var _ reconcile.Reconciler = (*reconciler)(nil)

// Reconcile brings one pool to its size.
//
//	error set                  retried with back-off
//	the backend is unavailable tried again in unavailableRetry
//	otherwise                  looked at again when its size can change by itself, or a held-back write is due
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (ctrl.Result, error) {
	defer r.work.Begin().End()
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	var wp v1alpha1.WarmPool
	if err := r.client.Get(ctx, req.NamespacedName, &wp); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("read warm pool: %w", err)
	}
	if wp.DeletionTimestamp != nil {
		r.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	result, err := r.reconcile(ctx, &wp)
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return ctrl.Result{}, nil // the process ends: nothing is to be retried, or complained of
	}
	if apierrors.IsConflict(err) {
		// Somebody wrote between the cache and us; the watch brings the newer object in a moment.
		return ctrl.Result{RequeueAfter: statusPeriod}, nil
	}
	return result, err
}

func (r *reconciler) reconcile(ctx context.Context, wp *v1alpha1.WarmPool) (ctrl.Result, error) {
	w := r.writtenOf(wp)
	w.mu.Lock()
	defer w.mu.Unlock()
	out := outcome{limit: warmpool.LimitNone}
	model, err := r.prepare(ctx, wp, w, &out)
	var lacks *unavailableError
	switch {
	case errors.As(err, &lacks):
		out.accepted = lacks
	case err != nil:
		return ctrl.Result{}, err
	default:
		if err := r.size(ctx, wp, model, &out); err != nil {
			out.backend = err
		}
	}
	// None of these is a reason to leave out the others: a quota on pods must not keep the status from telling of it.
	nudgeWait, nudgeErr := r.nudge(ctx, wp)
	wait, statusErr := r.writeStatus(ctx, wp, w, out)
	storeWait, keepErr := r.keep(ctx, wp, w)
	r.report(wp, w, out)
	err = errors.Join(nudgeErr, statusErr, keepErr)
	if out.backend != nil && !errors.As(out.backend, &lacks) {
		err = errors.Join(out.backend, err)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	wait = soonest(wait, nudgeWait)
	if out.accepted != nil || out.backend != nil || out.shortage != nil {
		return ctrl.Result{RequeueAfter: soonest(unavailableRetry, wait, storeWait)}, nil
	}
	return ctrl.Result{RequeueAfter: soonest(max(time.Millisecond, out.wake.Sub(r.now())), wait, storeWait)}, nil
}

// outcome is what one reconcile found.
type outcome struct {
	accepted *unavailableError // the spec cannot be followed
	backend  error             // the backend could not hold the size
	shortage *shortageError    // the backend was told its size, and somebody refuses to fill it
	notes    string            // what a person should know although all is well
	waiting  string            // what the scheduler says of replicas without a node
	sized    bool
	decision warmpool.Decision
	limit    warmpool.Limit
	next     *warmpool.Change
	wake     time.Time
}

// prepare brings the model's pool up to the spec: a new generation, a workload that changed its size, other images.
func (r *reconciler) prepare(ctx context.Context, wp *v1alpha1.WarmPool, w *written, out *outcome) (replicaModel, error) {
	if wp.Unreadable != "" {
		return replicaModel{}, unavailable(reasonInvalid, "%s", wp.Unreadable)
	}
	if len(wp.Name) > validation.LabelValueMaxLength {
		return replicaModel{}, unavailable(reasonInvalid, "the pool's name has %d characters, and it is a label's value on its replicas: shorten it to %d", len(wp.Name), validation.LabelValueMaxLength)
	}
	cfg, err := warmpool.NewConfig(wp.Spec)
	if err != nil {
		return replicaModel{}, unavailable(reasonInvalid, "%v", err)
	}
	model, err := r.replicaModel(ctx, wp)
	if err != nil {
		return replicaModel{}, err
	}
	warm, note, err := r.warmth(ctx, wp)
	if err != nil {
		return replicaModel{}, err
	}
	out.notes = note
	wanted := newTarget(wp.Namespace, model, warm)
	// A pool's first generation, and one that was seen through before, has left nothing with another backend.
	if w.generation != wp.Generation && wp.Generation > 1 && !seenThrough(wp) {
		if err := r.releaseOthers(ctx, wp); err != nil {
			return replicaModel{}, err
		}
	}
	if w.generation == wp.Generation && r.model.sameTarget(client.ObjectKeyFromObject(wp), wanted) {
		return model, nil
	}
	if err := r.adopt(ctx, wp, w, cfg, wanted); err != nil {
		return replicaModel{}, err
	}
	w.generation = wp.Generation
	return model, nil
}

// seenThrough reports whether this generation of the spec was in force before, by an earlier process too. That its status
// was written does not say so: a spec whose workload was missing has one, and its old backend still holds capacity.
func seenThrough(wp *v1alpha1.WarmPool) bool {
	accepted := meta.FindStatusCondition(wp.Status.Conditions, conditionAccepted)
	return accepted != nil && accepted.Status == metav1.ConditionTrue && accepted.ObservedGeneration == wp.Generation
}

// adopt has the model take the pool over: one that continues what this process, or an earlier one, has learned.
func (r *reconciler) adopt(ctx context.Context, wp *v1alpha1.WarmPool, w *written, cfg warmpool.Config, wanted target) error {
	key := client.ObjectKeyFromObject(wp)
	var kept state
	var err error
	if !r.model.with(key, func(*pool) {}) {
		if kept, err = load(ctx, r.live, r.log, wp); err != nil {
			return err
		}
		kept.Consumed = max(kept.Consumed, wp.Status.Consumed)
	}
	r.model.adopt(key, func(have *pool) *pool {
		if have != nil && w.generation == wp.Generation {
			have.target = wanted
			return have
		}
		p := &pool{
			key: key, backend: backendOf(wp), target: wanted, sizer: warmpool.NewSizer(cfg), demand: map[types.UID]int64{},
			gated: map[types.UID]int64{}, replicas: map[types.UID]*replica{}, waiting: map[types.UID]*nomination{}, desired: wp.Status.Desired,
		}
		if have != nil {
			kept, _, err = have.state(wp.UID)
			p.replicas, p.taken, p.desired, p.waiting, p.nudges = have.replicas, have.taken, have.desired, have.waiting, have.nudges
		}
		p.restore(kept, r.now())
		if have == nil {
			// A restart at which nothing changed has nothing to write.
			_, w.stateKey, err = p.state(wp.UID)
		}
		return p
	})
	return err
}

func backendOf(wp *v1alpha1.WarmPool) v1alpha1.WarmPoolBackend {
	if wp.Spec.Backend == "" {
		return v1alpha1.BackendPausePods
	}
	return wp.Spec.Backend
}

func (m *model) sameTarget(key types.NamespacedName, wanted target) bool {
	same := false
	m.with(key, func(p *pool) {
		t := p.target
		same = equality.Semantic.DeepEqual(t.shape, wanted.shape) && equality.Semantic.DeepEqual(t.nodeSelector, wanted.nodeSelector) &&
			equality.Semantic.DeepEqual(t.nodeAffinity, wanted.nodeAffinity) && equality.Semantic.DeepEqual(t.tolerations, wanted.tolerations) &&
			selectorText(t.workload) == selectorText(wanted.workload) && equality.Semantic.DeepEqual(t.warmth.images, wanted.warmth.images) &&
			t.warmth.rule == wanted.warmth.rule && t.warmth.unknown == wanted.warmth.unknown && t.warmth.wantImages == wanted.warmth.wantImages
	})
	return same
}

func selectorText(s labels.Selector) string {
	if s == nil {
		return "-"
	}
	return s.String()
}

// releaseOthers removes what another backend of this pool may have left, at a new generation.
func (r *reconciler) releaseOthers(ctx context.Context, wp *v1alpha1.WarmPool) error {
	for kind, other := range r.backends {
		if kind != backendOf(wp) {
			if err := other.release(ctx, wp); err != nil {
				return err
			}
		}
	}
	return nil
}

// size decides and has the backend hold it.
func (r *reconciler) size(ctx context.Context, wp *v1alpha1.WarmPool, model replicaModel, out *outcome) error {
	key, now := client.ObjectKeyFromObject(wp), r.now()
	req := request{shape: model.shape, template: model.template, surplus: func(keep int) []types.NamespacedName { return r.model.surplus(key, keep) }}
	r.model.with(key, func(p *pool) {
		lead, gated := p.lead(), float64(p.gatedSum)/micro
		p.sizer.SetScale(model.scale)
		out.decision = p.sizer.Decide(now, lead, gated)
		out.limit, out.wake, out.sized = out.decision.Limit, p.sizer.Wake(now, lead), true
		if next, ok := p.sizer.NextChange(now, lead, gated); ok {
			out.next = &next
		}
		if p.desired != out.decision.Replicas {
			r.log.Info("warm pool changes size", "warmPool", klog.KObj(wp), "from", p.desired, "to", out.decision.Replicas, "reason", out.decision.Reason())
		}
		p.resize(out.decision.Replicas)
		p.cost.change(now, p.sizer.Config().CostPerReplicaHour*float64(p.desired))
		req.busy, req.pause = p.busyNodes(r.model), p.pauseImage(r.model)
	})
	req.replicas = out.decision.Replicas
	err := r.backends[backendOf(wp)].apply(ctx, wp, req)
	if shortage, ok := errors.AsType[*shortageError](err); ok {
		out.shortage = shortage
		return nil
	}
	return err
}

// pauseImage is the sandbox image that most of the pool's nodes have.
func (p *pool) pauseImage(m *model) string {
	votes, best := map[string]int{}, ""
	for _, n := range m.nodes {
		if n.pause == "" || !p.hosts(n) {
			continue
		}
		votes[n.pause]++
		if best == "" || votes[n.pause] > votes[best] || votes[n.pause] == votes[best] && n.pause < best {
			best = n.pause
		}
	}
	return best
}

// report tells of trouble once.
func (r *reconciler) report(wp *v1alpha1.WarmPool, w *written, out outcome) {
	trouble := out.accepted
	if trouble == nil {
		trouble, _ = errors.AsType[*unavailableError](out.backend)
	}
	if trouble == nil {
		w.trouble = ""
		return
	}
	if w.trouble != trouble.reason+trouble.message {
		w.trouble = trouble.reason + trouble.message
		r.events.trouble(wp, trouble.reason, trouble.message)
	}
}

func (r *reconciler) writtenOf(wp *v1alpha1.WarmPool) *written {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := client.ObjectKeyFromObject(wp)
	if r.written == nil {
		r.written = map[types.NamespacedName]*written{}
	}
	if w := r.written[key]; w != nil && w.uid == wp.UID {
		return w
	}
	r.model.drop(key)
	r.written[key] = &written{uid: wp.UID}
	return r.written[key]
}

func (r *reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	delete(r.written, key)
	r.mu.Unlock()
	r.model.drop(key)
}

// soonest is the smallest of the times that are set.
func soonest(times ...time.Duration) time.Duration {
	least := time.Duration(0)
	for _, t := range times {
		if t > 0 && (least == 0 || t < least) {
			least = t
		}
	}
	return least
}
