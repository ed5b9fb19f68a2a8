package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"headstart.dev/gates/v1alpha1"
)

// Name is the controller's name in logs, metrics and events.
const Name = "headstart-gates"

// workers is how many pods are patched at once. More does not help one API server: sixteen requests in flight keep it busy.
const workers = 16

// SetupWithManager adds the gate controller to a manager. It has clients of its own, because it watches pods with field
// selectors and reads no more of them than it needs; policies and nodes come from the manager's cache.
func SetupWithManager(mgr ctrl.Manager) error {
	if err := v1alpha1.AddToScheme(mgr.GetScheme()); err != nil {
		return fmt.Errorf("register gate types: %w", err)
	}
	config := rest.CopyConfig(mgr.GetConfig())
	config.QPS = -1 // the API server's own priority and fairness holds us back where needed
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.UserAgent = Name
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make metadata client: %w", err)
	}
	r := newReconciler(mgr, clients, meta)
	c, err := controller.New(Name, mgr, controller.Options{Reconciler: r, MaxConcurrentReconciles: workers})
	if err != nil {
		return fmt.Errorf("make controller: %w", err)
	}
	if err := c.Watch(r.source); err != nil {
		return fmt.Errorf("watch what pods wait for: %w", err)
	}
	return nil
}

// reconciler lifts the gates of one pod at a time.
type reconciler struct {
	clients  kubernetes.Interface
	waitlist *waitlist
	lifter   lifter
	source   *source
}

func newReconciler(mgr ctrl.Manager, clients kubernetes.Interface, meta metadata.Interface) *reconciler {
	log := mgr.GetLogger().WithName(Name)
	list := newWaitlist()
	src := newSource(mgr.GetCache(), clients, meta, list, log)
	return &reconciler{
		clients: clients, waitlist: list, source: src,
		lifter: lifter{pods: meta.Resource(corev1.SchemeGroupVersion.WithResource("pods"))},
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
	now := time.Now()
	d, ok := r.waitlist.decide(request.NamespacedName, now)
	if !ok {
		return reconcile.Result{}, nil
	}
	if len(d.lift) > 0 {
		if err := r.carryOut(ctx, d); err != nil {
			return reconcile.Result{}, err
		}
	}
	if d.again.IsZero() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(d.again.Sub(now), time.Millisecond)}, nil
}

func (r *reconciler) carryOut(ctx context.Context, d decision) error {
	log := ctrl.LoggerFrom(ctx)
	if d.steer != nil {
		r.source.reserved()
	}
	outcome, err := r.lifter.lift(ctx, d)
	switch outcome {
	case lifted:
		for _, g := range d.lift {
			log.Info("gate lifted", "gate", g.policy.GateName, "policy", g.policy.Name, "outcome", g.verdict.Outcome,
				"duration", time.Since(d.pod.Created).Round(time.Millisecond).String(), "steered", d.steer != nil)
		}
	case gone, failed:
		r.waitlist.undo(d)
	case conflict:
		r.waitlist.undo(d)
		return r.reread(ctx, d.pod.Key())
	}
	return err
}

// reread takes the live state of a pod that somebody else wrote, so that the next decision is not made on the same old one.
func (r *reconciler) reread(ctx context.Context, key types.NamespacedName) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	pod, err := r.clients.CoreV1().Pods(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read pod %s: %w", key, err)
	}
	return r.source.refresh(pod)
}
