package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates/v1alpha1"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness/connection"
	"headstart.dev/readiness/health"
	"headstart.dev/readiness/nodewatch"
)

// Name is the controller's name in logs, metrics and events.
const Name = "headstart-gates"

// defaultWriters is how many pods are patched at once: sixteen requests in flight keep one API server busy.
const defaultWriters = 16

// Config is what the controller can be told.
type Config struct {
	// Writers is how many pods are patched at once; 0 means a default.
	Writers int
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Nodes is the watch of Nodes that the process shares, started by the caller; nil means one of the controller's own.
	Nodes *nodewatch.Watch
}

// clients are the controller's own: without a client-side limit, in the binary encoding where the API has one.
type clients struct {
	typed    kubernetes.Interface
	metadata metadata.Interface
	dynamic  dynamic.Interface
}

func newClients(base *rest.Config) (c clients, err error) {
	config, err := connection.WatchesApart(base)
	if err != nil {
		return c, err
	}
	config.QPS = -1 // the API server's own priority and fairness holds us back where needed
	config.UserAgent = Name
	plain := rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	var errs [3]error
	c.typed, errs[0] = kubernetes.NewForConfig(config)
	c.metadata, errs[1] = metadata.NewForConfig(config)
	c.dynamic, errs[2] = dynamic.NewForConfig(plain)
	if err := errors.Join(errs[:]...); err != nil {
		return c, fmt.Errorf("make clients: %w", err)
	}
	return c, nil
}

// SetupWithManager adds the gate controller to a manager. It watches pods by itself, because it asks for them
// with field selectors and keeps little of what it reads; policies come from the manager's cache. Every replica keeps
// its view warm, the leader writes.
func SetupWithManager(mgr ctrl.Manager, cfg Config) error {
	if err := errors.Join(v1alpha1.AddToScheme(mgr.GetScheme()), prepullv1alpha1.AddToScheme(mgr.GetScheme())); err != nil {
		return fmt.Errorf("register API types: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return err
	}
	c, err := newClients(mgr.GetConfig())
	if err != nil {
		return err
	}
	r := newReconciler(mgr, c, m)
	nodes := cfg.Nodes
	if nodes == nil {
		if nodes, err = nodewatch.New(mgr.GetConfig()); err != nil {
			return err
		}
		if err := mgr.Add(nodes); err != nil {
			return fmt.Errorf("add to manager: %w", err)
		}
	}
	r.source.follow(nodes)
	if cfg.Writers <= 0 {
		cfg.Writers = defaultWriters
	}
	warmStandby := true
	ctl, err := controller.New(Name, mgr, controller.Options{
		Reconciler: r, MaxConcurrentReconciles: cfg.Writers, EnableWarmup: &warmStandby, RateLimiter: retries(),
	})
	if err != nil {
		return fmt.Errorf("make controller: %w", err)
	}
	if err := ctl.Watch(r.source); err != nil {
		return fmt.Errorf("watch what pods wait for: %w", err)
	}
	for _, runnable := range []leading{r.events.run, r.book.run, r.pulls.run, r.labeller.run} {
		if err := mgr.Add(runnable); err != nil {
			return fmt.Errorf("add to manager: %w", err)
		}
	}
	return errors.Join(mgr.AddReadyzCheck("gates", r.source.ready), mgr.AddHealthzCheck("gates", r.work.Check),
		mgr.AddHealthzCheck("gates-status", r.book.work.Check), mgr.AddHealthzCheck("gates-labels", r.labeller.work.Check))
}

// leading runs while this replica leads.
type leading func(context.Context) error

// Start runs it.
func (l leading) Start(ctx context.Context) error { return l(ctx) }

// NeedLeaderElection keeps it from running on a standby.
func (leading) NeedLeaderElection() bool { return true }

// reconciler lifts the gates of one pod at a time.
type reconciler struct {
	clients  kubernetes.Interface
	waitlist *waitlist
	lifter   lifter
	source   *source
	events   *events
	book     *book
	pulls    *pulls
	labeller *labeller
	metrics  *gateMetrics
	work     health.Work
}

func newReconciler(mgr ctrl.Manager, c clients, m *gateMetrics) *reconciler {
	log := mgr.GetLogger().WithName(Name)
	list := newWaitlist()
	recorder := newEvents(c.typed, log)
	ledger := newBook(mgr.GetClient(), list, recorder, m, log)
	src := newSource(mgr, c, list, log)
	src.book = ledger
	puller := &pulls{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), cache: mgr.GetCache(), waitlist: list, log: log, bell: newBell(), opened: ledger.opened,
		refused: ledger.pullsRefused,
	}
	steering := newLabeller(c.metadata.Resource(corev1.SchemeGroupVersion.WithResource("nodes")), list, log, ledger.opened)
	src.bells = []bell{ledger.dirty, puller.bell, steering.bell}
	return &reconciler{
		clients: c.typed, waitlist: list, source: src, events: recorder, book: ledger, metrics: m, pulls: puller, labeller: steering,
		lifter: lifter{pods: c.metadata.Resource(corev1.SchemeGroupVersion.WithResource("pods"))},
	}
}

// Reconcile looks at one waiting pod and lifts what may be lifted, all in one patch.
//
//	pod                          result
//	not waiting                  nothing
//	everything still missing     look again at the next deadline
//	something to lift            one patch
//	written by others meanwhile  read it live and decide anew
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	defer r.work.Begin().End()
	now := time.Now()
	d, ok := r.waitlist.decide(request.NamespacedName, now)
	if ok && len(d.unknown) > 0 && len(d.lift) == 0 {
		d, ok = r.askAboutGangs(ctx, d)
	}
	if !ok {
		return reconcile.Result{}, nil
	}
	r.source.enqueue(d.wake)
	if len(d.lift) > 0 {
		if err := r.carryOut(ctx, d); err != nil {
			return reconcile.Result{}, err
		}
	}
	for _, g := range d.wait {
		if g.verdict.Known() {
			r.events.waiting(d.pod, g)
		}
		if g.verdict.Unreadable() {
			r.book.dirty.ring() // the policy's status says so
		}
	}
	if d.again.IsZero() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(d.again.Sub(now), time.Millisecond)}, nil
}

func (r *reconciler) carryOut(ctx context.Context, d decision) error {
	if d.steer != nil {
		r.source.expiry.ring()
	}
	r.events.lifts.Add(1)
	outcome, err := r.lifter.lift(ctx, d)
	r.events.lifts.Add(-1)
	switch outcome {
	case lifted:
		r.announce(ctx, d)
	case gone:
		r.waitlist.undo(d)
	case failed:
		r.waitlist.undo(d)
		r.tellRefused(d, err)
	case conflict:
		r.waitlist.undo(d)
		return r.reread(ctx, d.pod.Key())
	}
	return err
}

// tellRefused tells of a lift that the API server will not have.
func (r *reconciler) tellRefused(d decision, err error) {
	if !refused(err) {
		return
	}
	for _, g := range d.lift {
		r.book.liftRefused(g.policy.UID, err.Error())
		r.events.liftRefused(d.pod, g, err)
	}
}

// announce tells of lifted gates, after the write.
func (r *reconciler) announce(ctx context.Context, d decision) {
	waited := time.Since(d.pod.Created)
	for _, g := range d.lift {
		r.metrics.lifted(g.policy.Name, g.verdict.Outcome, waited)
		r.book.lifted(g.policy.UID, g.verdict.Outcome)
		r.events.lifted(d, g)
		ctrl.LoggerFrom(ctx).V(1).Info("gate lifted", "gate", g.policy.GateName, "policy", g.policy.Name,
			"outcome", g.verdict.Outcome, "duration", waited.Round(time.Millisecond).String(), "steered", d.steer != nil)
	}
}

// reread takes the live state of a pod that somebody else wrote, so that the next decision is not made on the same old one.
func (r *reconciler) reread(ctx context.Context, key types.NamespacedName) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	pod, err := r.clients.CoreV1().Pods(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the watch says so in a moment
	}
	if err != nil {
		return fmt.Errorf("read pod %s: %w", key, err)
	}
	return r.source.refresh(pod)
}
