package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"

	"headstart.dev/readiness/compat/upstream"
)

// upstreamGuard looks out for upstream's own controller: two controllers on one rule would write against each other, so
// while the other one runs its rules are left to it. It is there while its lease is being renewed, or while somebody else
// writes the statuses of rules (it can be run without a lease, or in any namespace). It has gone when neither has happened
// for foreignQuiet.
//
// What stands still because of a lease must not be anybody's to write: leases are looked at in the namespaces that only
// those write who run a cluster, and not in a tenant's. Statuses of rules are cluster-wide rights anyway.
type upstreamGuard struct {
	log    logr.Logger
	leases rest.Interface
	// namespaces are those where leases count.
	namespaces []string
	// now is the API server's time.
	now func() time.Time
	// changed is called when foreign has changed. Set before run.
	changed func()

	once sync.Once
	// synced is closed when the leases have been listed.
	synced chan struct{}
	// wake tells that something was seen.
	wake chan struct{}

	mu sync.Mutex
	// begin is since when writes are looked at: earlier ones may be of a controller that has gone.
	begin time.Time
	seen  map[string]foreignLease
	// looked are the namespaces whose leases have been listed, or cannot be.
	looked map[string]bool
	// wrote is when somebody else last wrote a status, and writer who.
	wrote  time.Time
	writer string
	why    string
}

// foreignLease is a lease of upstream's as it was last seen.
type foreignLease struct {
	holder  string
	renewed time.Time
	// at is when that was first seen, by our own clock, and moved whether it was seen to come about: then it counts
	// whatever the clock of its writer says.
	at    time.Time
	moved bool
}

// left is for how long the holder counts as there without another renewal.
func (l *foreignLease) left(now time.Time) time.Duration {
	left := foreignQuiet - time.Since(l.at)
	if !l.moved {
		left = min(left, foreignQuiet-now.Sub(l.renewed))
	}
	return left
}

// foreignQuiet is how long upstream's controller must have been silent. Source: its lease lasts 15 s, client-go's default.
const foreignQuiet = 15 * time.Second

var errUpstreamRuns = errors.New("upstream's node-readiness-controller is running beside this one")

// upstreamNamespaces are where upstream's controller is installed by its own manifests, and where such controllers are else.
// Source: kubernetes-sigs/node-readiness-controller config/default/kustomization.yaml@v0.5.0.
var upstreamNamespaces = []string{"nrr-system", metav1.NamespaceSystem}

// newUpstreamGuard makes a guard; own is the namespace of this controller, which may run from upstream's manifests.
func newUpstreamGuard(log logr.Logger, leases rest.Interface, own string, now func() time.Time) *upstreamGuard {
	namespaces := slices.Clone(upstreamNamespaces)
	if !slices.Contains(namespaces, own) {
		namespaces = append(namespaces, own)
	}
	return &upstreamGuard{
		log: log, leases: leases, namespaces: namespaces, looked: map[string]bool{}, now: now, changed: func() {}, synced: make(chan struct{}), wake: make(chan struct{}, 1),
		begin: now(), seen: map[string]foreignLease{},
	}
}

// foreign says in one line who else carries out upstream's rules; "" for nobody.
func (g *upstreamGuard) foreign() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why
}

// run looks out until ctx ends.
func (g *upstreamGuard) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	only := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", upstream.LeaseName).String()
	}
	for _, namespace := range g.namespaces {
		wg.Go(func() {
			feed(ctx, lister(g.leases, "leases", namespace, only), &coordinationv1.Lease{}, sink[*coordinationv1.Lease]{
				kind: "leases", strip: func(l *coordinationv1.Lease) *coordinationv1.Lease { return l },
				observe: g.observeLease, replace: func(list []*coordinationv1.Lease) { g.replaceLeases(namespace, list) }, synced: func() {},
				asked: func(err error) { g.asked(namespace, err) },
			})
		})
	}
	for {
		var again <-chan time.Time
		if wait := g.decide(); wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		case <-again:
		}
	}
}

func (g *upstreamGuard) observeLease(l *coordinationv1.Lease, known bool) {
	g.mu.Lock()
	g.setLease(l, known)
	g.mu.Unlock()
	g.nudge()
}

// replaceLeases takes over a complete list. The first one is decided on before anything is in force.
func (g *upstreamGuard) replaceLeases(namespace string, list []*coordinationv1.Lease) {
	g.mu.Lock()
	if len(list) == 0 {
		delete(g.seen, namespace)
	}
	for _, l := range list {
		g.setLease(l, true)
	}
	g.mu.Unlock()
	g.lookedAt(namespace)
}

// asked takes the outcome of a request. Where leases may not be read nothing is known of them, and the statuses of rules tell.
func (g *upstreamGuard) asked(namespace string, err error) {
	if err != nil {
		g.log.V(1).Info("leases of upstream's controller cannot be read", "namespace", namespace, "error", err.Error())
		g.lookedAt(namespace)
	}
}

// lookedAt notes that a namespace has been looked at.
func (g *upstreamGuard) lookedAt(namespace string) {
	g.decide()
	g.mu.Lock()
	g.looked[namespace] = true
	all := len(g.looked) == len(g.namespaces)
	g.mu.Unlock()
	if all {
		g.once.Do(func() { close(g.synced) })
	}
	g.nudge()
}

func (g *upstreamGuard) setLease(l *coordinationv1.Lease, known bool) {
	if !known || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" || l.Spec.RenewTime == nil {
		delete(g.seen, l.Namespace)
		return
	}
	old, had := g.seen[l.Namespace]
	next := foreignLease{holder: *l.Spec.HolderIdentity, renewed: l.Spec.RenewTime.Time, at: time.Now(), moved: had}
	if had && old.holder == next.holder && old.renewed.Equal(next.renewed) {
		return
	}
	g.seen[l.Namespace] = next
}

// observe looks at who has written the status of a rule.
func (g *upstreamGuard) observe(in *upstream.NodeReadinessRule) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range in.ManagedFields {
		f := &in.ManagedFields[i]
		if f.Subresource == "status" && f.Manager != fieldManager && f.Time != nil && f.Time.After(g.begin) && f.Time.After(g.wrote) {
			g.wrote, g.writer = f.Time.Time, f.Manager
			g.nudge()
		}
	}
}

func (g *upstreamGuard) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// decide finds out whether another controller is there, tells of a change, and says when to look again; 0 for with the
// next news.
func (g *upstreamGuard) decide() (again time.Duration) {
	g.mu.Lock()
	why, until := g.look()
	was := g.why
	g.why = why
	g.mu.Unlock()
	switch {
	case why != "" && was == "":
		g.log.Error(errUpstreamRuns, "its rules are left to it while it runs", "why", why)
	case why == "" && was != "":
		g.log.Info("upstream's controller has gone, its rules are carried out from here")
	}
	if (why == "") != (was == "") {
		g.changed()
	}
	return until
}

// look says who is there and for how long that holds without news; g.mu is held.
func (g *upstreamGuard) look() (why string, until time.Duration) {
	const remedy = "scale it to 0 replicas to move over, or leave upstream out of --rules"
	for namespace, l := range g.seen {
		if left := l.left(g.now()); left > until {
			why = fmt.Sprintf("upstream's node-readiness-controller is running (lease %s/%s, held by %s): %s", namespace, upstream.LeaseName, l.holder, remedy)
			until = left
		}
	}
	if left := foreignQuiet - g.now().Sub(g.wrote); !g.wrote.IsZero() && left > until {
		why = fmt.Sprintf("another controller writes the statuses of these rules (field manager %q): %s", g.writer, remedy)
		until = left
	}
	return why, until
}
