package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness/nodewatch"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// source feeds the waitlist with facts and the queue with the pods that want another look.
type source struct {
	cache    cache.Cache
	clients  kubernetes.Interface
	waitlist *waitlist
	objects  *objects
	named    *named
	shapes   *gates.Shapes
	book     *book
	log      logr.Logger

	queue     atomic.Pointer[queue] // nil until Start; nodes may come before
	synced    []toolscache.InformerSynced
	boundOnce sync.Once
	fleet     fleetInputs
	warm      atomic.Bool // the first view is complete
	expiry    bell        // a reservation was made
	deletions bell        // a policy was deleted
	bells     []bell      // of those who look at the waitlist as a whole
}

func newSource(mgr ctrl.Manager, c clients, list *waitlist, log logr.Logger) *source {
	s := &source{
		cache: mgr.GetCache(), clients: c.typed, waitlist: list, shapes: gates.NewShapes(), log: log, expiry: newBell(), deletions: newBell(),
		objects: &objects{client: c.metadata, typed: c.typed, log: log},
		named:   &named{dynamic: c.dynamic, clients: c.typed, mapper: mgr.GetRESTMapper(), log: log},
	}
	arrived := func(dependency gates.Dependency) { s.enqueue(list.arrived(dependency)) }
	s.objects.arrived, s.named.changed = arrived, arrived
	s.objects.answered = func() { s.enqueue(list.everyone()) }
	list.sources = factSources{
		exists: s.objects.exists, object: s.named.object, readyEndpoints: s.named.readyEndpoints, fleetProblem: s.fleet.problem,
		need: func(dependency gates.Dependency) {
			s.objects.need(dependency)
			s.named.need(dependency)
		},
		drop: s.named.drop,
	}
	return s
}

// Start begins the watches that are always needed beside that of nodes: unscheduled pods, policies.
func (s *source) Start(ctx context.Context, q queue) error {
	s.queue.Store(&q)
	s.objects.start(ctx)
	s.named.start(ctx)
	if err := s.watchPolicies(ctx); err != nil {
		return err
	}
	go s.expireReservations(ctx)
	go s.settleDeleted(ctx)
	go s.awaitNodes(ctx)
	return s.watchUnscheduled(ctx)
}

// WaitForSync returns when the pods and policies that were there at the start have been seen. What is not known of nodes
// then holds no pod beyond its deadline.
func (s *source) WaitForSync(ctx context.Context) error {
	if !toolscache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return fmt.Errorf("wait for the first view of pods and policies: %w", context.Cause(ctx))
	}
	s.warm.Store(true)
	s.enqueue(s.waitlist.open())
	s.book.open()
	return nil
}

// ready fails until the replica could lift gates at once.
func (s *source) ready(*http.Request) error {
	if !s.warm.Load() {
		return errors.New("pods and policies have not been listed yet")
	}
	if problem := s.fleet.problem(); problem != "" && s.fleet.wanted() {
		return errors.New(problem)
	}
	return nil
}

// follow takes nodes from the watch that the process shares. It must be called before that starts.
func (s *source) follow(nodes *nodewatch.Watch) {
	nodewatch.Follow(nodes, nodewatch.Handler[*gates.Node]{
		Read: gates.ReadNode,
		Set: func(node *gates.Node) {
			if wake, changed := s.waitlist.setNode(node); changed {
				s.enqueue(wake)
				s.ring()
			}
		},
		Delete: func(name string) {
			s.enqueue(s.waitlist.deleteNode(name))
			s.ring()
		},
	})
	s.fleet.nodes = nodes.Synced()
}

// run begins a watch that must have synced before any pod is decided on.
func (s *source) run(ctx context.Context, informer toolscache.SharedIndexInformer, handler toolscache.ResourceEventHandler) error {
	if err := logWatchErrors(informer, s.log, nil); err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	s.synced = append(s.synced, registration.HasSynced)
	go informer.RunWithContext(ctx)
	return nil
}

func (s *source) watchUnscheduled(ctx context.Context) error {
	informer, err := newPodInformer(s.clients.CoreV1().RESTClient(), selectUnscheduled, func(pod *corev1.Pod) (any, error) {
		return s.shapes.Pod(pod)
	})
	if err != nil {
		return err
	}
	return s.run(ctx, informer, handlers(s.setPod, s.deletePod))
}

func (s *source) deletePod(pod *gates.Pod) {
	s.enqueue(s.waitlist.deletePod(pod))
	s.ring()
}

// ring tells those who look at the waitlist as a whole that it has changed.
func (s *source) ring() {
	for _, b := range s.bells {
		b.ring()
	}
}

func (s *source) setPod(pod *gates.Pod) {
	s.enqueue(s.waitlist.setPod(pod, time.Now()))
	s.ring()
	if len(pod.Gates) == 0 {
		s.expiry.ring() // the room of a steered pod may have been adopted
	}
}

// refresh takes a pod that was read live.
func (s *source) refresh(pod *corev1.Pod) error {
	read, err := s.shapes.Pod(pod)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != "" {
		s.deletePod(read)
		return nil
	}
	s.setPod(read)
	return nil
}

// watchPolicies keeps the set of policies in force.
func (s *source) watchPolicies(ctx context.Context) error {
	informer, err := s.cache.GetInformer(ctx, &v1alpha1.GatePolicy{})
	if err != nil {
		return fmt.Errorf("watch GatePolicies (is deploy/crd/headstart.dev_gatepolicies.yaml applied?): %w", err)
	}
	registration, err := informer.AddEventHandler(handlers(
		func(policy *v1alpha1.GatePolicy) {
			if inForce, changed := s.book.set(policy); changed {
				s.enforce(ctx, inForce)
			}
		},
		func(policy *v1alpha1.GatePolicy) {
			s.enforce(ctx, s.book.remove(policy, time.Now()))
			s.deletions.ring()
		}))
	if err != nil {
		return fmt.Errorf("watch GatePolicies: %w", err)
	}
	s.synced = append(s.synced, registration.HasSynced)
	return nil
}

func (s *source) enforce(ctx context.Context, inForce map[string]*gates.Policy) {
	for _, policy := range inForce {
		if policy.NeedsFleet() {
			if err := s.watchBound(ctx); err != nil {
				s.log.Error(err, "cannot tell where pods could run")
			}
		}
	}
	s.enqueue(s.waitlist.setPolicies(inForce))
	s.ring()
}

func (s *source) enqueue(keys []types.NamespacedName) {
	q := s.queue.Load()
	if q == nil {
		return // no pod has been seen yet, so none waits
	}
	for _, key := range keys {
		(*q).Add(reconcile.Request{NamespacedName: key})
	}
}

// expireReservations ends reservations when their time has come; it sleeps while there is none.
func (s *source) expireReservations(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.expiry:
		case <-timer.C:
		}
		wake, next := s.waitlist.expire(time.Now())
		s.enqueue(wake)
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Second))
		}
	}
}
