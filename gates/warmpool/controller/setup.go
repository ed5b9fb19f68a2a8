package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates/v1alpha1"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness/nodewatch"
)

// reconcilers is how many pools are reconciled at once: enough that one slow write does not hold the others.
const reconcilers = 4

// leastBackOff and mostBackOff bound the wait after an error. While a pool backs off it does not look at its schedules, so
// the longest is no longer than what a start may be late by; the default is a quarter of an hour.
const leastBackOff, mostBackOff = 50 * time.Millisecond, time.Minute

// Config is what the controller needs beside the manager.
type Config struct {
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Nodes is the watch of Nodes that the process shares, started by the caller; nil means one of the controller's own.
	Nodes *nodewatch.Watch
}

// SetupWithManager adds the controller. Where the cluster has no WarmPool CRD it adds nothing and says so.
func SetupWithManager(mgr ctrl.Manager, cfg Config) error {
	log := mgr.GetLogger().WithName("warmpool")
	if installed, err := has(mgr, v1alpha1.GroupVersion.WithKind("WarmPool")); err != nil || !installed {
		if err == nil {
			log.Info("warm pools are off: the cluster has no WarmPool CRD")
		}
		return err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := prepullv1alpha1.AddToScheme(mgr.GetScheme()); err != nil {
		return fmt.Errorf("register PrepullPolicy: %w", err)
	}
	feed := &feed{cache: mgr.GetCache(), leads: mgr.Elected()}
	m := newModel(cfg.Now, feed.enqueue)
	metrics, err := newMetrics(cfg.Registerer, m)
	if err != nil {
		return err
	}
	r := &reconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), now: cfg.Now, model: m, metrics: metrics,
		events: recorder{mgr.GetEventRecorder("headstart-warmpool")}, log: log, feed: feed,
	}
	r.backends = map[v1alpha1.WarmPoolBackend]backend{
		v1alpha1.BackendPausePods:      &pausePods{client: r.client, live: r.live},
		v1alpha1.BackendCapacityBuffer: &capacityBuffer{client: r.client, live: r.live},
		v1alpha1.BackendStaticNodePool: &staticNodePool{client: r.client, live: r.live},
	}
	feed.watch(&corev1.Pod{}, m.podHandler())
	if err := followNodes(mgr, cfg.Nodes, m, feed); err != nil {
		return err
	}
	if err := mgr.Add(r); err != nil {
		return fmt.Errorf("add the keeper of warm pools' state: %w", err)
	}
	if err := r.build(mgr, feed); err != nil {
		return err
	}
	return errors.Join(mgr.AddReadyzCheck("warmpool", feed.ready), mgr.AddHealthzCheck("warmpool", r.work.Check))
}

// followNodes feeds the model from the watch that the process shares, or from one of its own.
func followNodes(mgr ctrl.Manager, nodes *nodewatch.Watch, m *model, feed *feed) error {
	if nodes == nil {
		var err error
		if nodes, err = nodewatch.New(mgr.GetConfig()); err != nil {
			return err
		}
		if err := mgr.Add(nodes); err != nil {
			return fmt.Errorf("add the watch of nodes: %w", err)
		}
	}
	nodewatch.Follow(nodes, m.nodeHandler())
	feed.synced = append(feed.synced, nodes.HasSynced)
	return nil
}

func has(mgr ctrl.Manager, kind schema.GroupVersionKind) (bool, error) {
	_, err := mgr.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	switch {
	case meta.IsNoMatchError(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", kind.Kind, err)
	}
	return true, nil
}

func (r *reconciler) build(mgr ctrl.Manager, feed *feed) error {
	b := ctrl.NewControllerManagedBy(mgr).Named("warmpool").
		For(&v1alpha1.WarmPool{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}, builder.WithPredicates(specOrFailure)).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(r.poolsOfWorkload(kindDeployment)), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: reconcilers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](leastBackOff, mostBackOff),
		})
	prepullPolicies, err := has(mgr, prepullv1alpha1.GroupVersion.WithKind("PrepullPolicy"))
	if err != nil {
		return err
	}
	if r.prepullPolicies = prepullPolicies; prepullPolicies {
		b = b.Watches(&prepullv1alpha1.PrepullPolicy{}, handler.EnqueueRequestsFromMapFunc(r.poolsOfPrepull))
	}
	gatePolicies, err := has(mgr, v1alpha1.GroupVersion.WithKind("GatePolicy"))
	if err != nil {
		return err
	}
	if gatePolicies {
		feed.watch(&v1alpha1.GatePolicy{}, r.model.policyHandler())
	}
	if err := b.WatchesRawSource(feed).Complete(r); err != nil {
		return fmt.Errorf("build warm pool controller: %w", err)
	}
	return nil
}

// poolsOfWorkload lists the pools whose shape follows a workload of a kind.
func (r *reconciler) poolsOfWorkload(kind string) handler.MapFunc {
	return func(ctx context.Context, workload client.Object) []reconcile.Request {
		return r.pools(ctx, workload.GetNamespace(), func(wp *v1alpha1.WarmPool) bool {
			ref := wp.Spec.Shape.ScalableRef
			return ref != nil && ref.Kind == kind && ref.Name == workload.GetName()
		})
	}
}

// poolsOfPrepull lists the pools whose warmth follows a PrepullPolicy.
func (r *reconciler) poolsOfPrepull(ctx context.Context, policy client.Object) []reconcile.Request {
	return r.pools(ctx, "", func(wp *v1alpha1.WarmPool) bool {
		return wp.Spec.Warm != nil && wp.Spec.Warm.Prepull == policy.GetName()
	})
}

func (r *reconciler) pools(ctx context.Context, namespace string, wanted func(*v1alpha1.WarmPool) bool) []reconcile.Request {
	var list v1alpha1.WarmPoolList
	if err := r.client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		r.log.Error(err, "list warm pools")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
