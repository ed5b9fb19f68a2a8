package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"headstart.dev/readiness"
	"headstart.dev/readiness/connection"
	"headstart.dev/readiness/nodewatch"
)

// Config is what the controller can be told.
type Config struct {
	// Forms are the rule forms that are read; empty means native only.
	Forms []readiness.Form
	// Writers is how many nodes are written at once; 0 means as many as the API server answers well to.
	Writers int
	// Namespace is where the controller keeps its ledger.
	Namespace string
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Nodes is the watch of Nodes that the process shares, started by the caller; nil means one of the controller's own.
	Nodes *nodewatch.Watch
	// Version and UpstreamNodeStates are for upstream's metrics: node_readiness_build_info, and node_readiness_nodes_by_state,
	// which upstream serves on demand only.
	Version            string
	UpstreamNodeStates bool
}

// defaultNamespace is where the ledger lies when Config names no other.
const defaultNamespace = "headstart-system"

// SetupWithManager adds the readiness controller to the manager: every replica keeps its model warm, the leader writes.
func SetupWithManager(mgr ctrl.Manager, cfg Config) error {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return fmt.Errorf("register readiness metrics: %w", err)
	}
	clock := newServerClock()
	rc, err := connect(mgr.GetConfig(), clock)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	patches, err := metadata.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("make metadata client: %w", err)
	}
	log := mgr.GetLogger().WithName("readiness")
	engine := newEngine(log, clock.now, m)
	c := &controller{
		log: log, engine: engine, crew: newCrew(cfg.Writers), watcher: &watcher{engine: engine, client: client},
		events: newRecorder(log, client.CoreV1(), m),
		api:    apiNodes{patches: patches.Resource(corev1.SchemeGroupVersion.WithResource("nodes")), nodes: client.CoreV1()},
	}
	engine.unclaimedTold = c.events.unclaimed
	if err := cfg.Registerer.Register(newCollector(engine)); err != nil {
		return fmt.Errorf("register readiness metrics: %w", err)
	}
	plain := rest.CopyConfig(rc)
	// Custom resources are JSON only.
	plain.ContentConfig = rest.ContentConfig{}
	objects, err := dynamic.NewForConfig(plain)
	if err != nil {
		return fmt.Errorf("make client for NodeClaims: %w", err)
	}
	c.claims = &claimDeleter{log: log, engine: engine, client: patches, objects: objects, events: c.events}
	c.ledger = &ledger{log: log, engine: engine, maps: client.CoreV1().ConfigMaps(cmp.Or(cfg.Namespace, defaultNamespace))}
	c.claims.note = c.ledger.saveDeletions
	if c.watcher.objects, err = newObjectWatcher(mgr, rc, engine); err != nil {
		return err
	}
	if err := cfg.Registerer.Register(brakeCollector{engine}); err != nil {
		return fmt.Errorf("register readiness metrics: %w", err)
	}
	if c.nodes, err = followNodes(mgr, cfg.Nodes, rc, engine); err != nil {
		return err
	}
	if err := c.addForms(rc, patches, client, &cfg); err != nil {
		return err
	}
	if err := mgr.Add(everywhere(c.watch)); err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(c.lead)); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("readiness", c.ready); err != nil {
		return err
	}
	return mgr.AddHealthzCheck("readiness", c.healthy)
}

// addForms makes the watches of the rule forms that are read.
func (c *controller) addForms(rc *rest.Config, meta metadata.Interface, core kubernetes.Interface, cfg *Config) error {
	forms := cfg.Forms
	if len(forms) == 0 {
		forms = []readiness.Form{readiness.FormNative}
	}
	maker, err := newFormMaker(rc, meta, c)
	if err != nil {
		return err
	}
	if slices.Contains(forms, readiness.FormUpstream) {
		c.guard = newUpstreamGuard(c.log, core.CoordinationV1().RESTClient(), cmp.Or(cfg.Namespace, defaultNamespace), c.engine.now)
		maker.guard = c.guard
		if c.engine.upstream, err = newUpstreamMetrics(cfg.Registerer, c.engine, cfg.UpstreamNodeStates, cfg.Version); err != nil {
			return fmt.Errorf("register upstream's metrics: %w", err)
		}
		c.engine.adopted = c.events.adopted
	}
	for _, form := range slices.Compact(slices.Sorted(slices.Values(forms))) {
		f, err := maker.make(form)
		if err != nil {
			return err
		}
		c.engine.unseen[form] = ""
		c.forms = append(c.forms, f)
	}
	return nil
}

// connect is config with a connection of its own, so that no other controller's requests stand in the way of a release,
// and the API server's time from every answer. There is no client-side rate limit: the writers pace themselves by the
// API server's answers.
func connect(config *rest.Config, clock *serverClock) (*rest.Config, error) {
	rc := rest.CopyConfig(config)
	rc.QPS, rc.Burst = -1, -1
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	rc.Dial = connection.Dialer().DialContext
	rc.Wrap(clock.wrap)
	return connection.WatchesApart(rc)
}

// followNodes feeds the engine from the watch that the process shares, or from one of its own.
func followNodes(mgr ctrl.Manager, shared *nodewatch.Watch, rc *rest.Config, e *Engine) (*nodewatch.Watch, error) {
	nodes := shared
	if nodes == nil {
		var err error
		if nodes, err = nodewatch.New(rc); err != nil {
			return nil, err
		}
		if err := mgr.Add(nodes); err != nil {
			return nil, err
		}
	}
	nodewatch.Follow(nodes, nodewatch.Handler[stripped]{
		Read: stripNode, Set: e.ObserveNode, Delete: e.ForgetNode, Replace: e.ReplaceNodes,
	})
	return nodes, nil
}

// everywhere runs on every replica, not on the leader alone.
type everywhere func(context.Context) error

// Start runs f.
func (f everywhere) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection says no.
func (everywhere) NeedLeaderElection() bool { return false }

type controller struct {
	log     logr.Logger
	engine  *Engine
	crew    *crew
	nodes   *nodewatch.Watch
	watcher *watcher
	forms   []*formWatch
	events  *recorder
	claims  *claimDeleter
	ledger  *ledger
	api     nodeWriter
	// guard looks out for upstream's controller; nil where its rules are not read.
	guard *upstreamGuard
	// synced is set when the first lists have come.
	synced atomic.Bool
}

// watch keeps the model up to date until ctx ends.
func (c *controller) watch(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.watcher.Run(ctx)
	}()
	var forms sync.WaitGroup
	defer forms.Wait()
	for _, f := range c.forms {
		forms.Go(func() { f.run(ctx) })
	}
	if c.guard != nil {
		forms.Go(func() { c.guard.run(ctx) })
	}
	if c.listed(ctx) {
		c.synced.Store(true)
		c.log.Info("caches are warm")
	}
	<-done
	return nil
}

// listed waits for the first lists, and says whether they came before ctx ended.
func (c *controller) listed(ctx context.Context) bool {
	lists := []<-chan struct{}{c.nodes.Synced()}
	for _, f := range c.forms {
		lists = append(lists, f.synced)
	}
	if c.guard != nil {
		lists = append(lists, c.guard.synced)
	}
	for _, list := range lists {
		select {
		case <-list:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// lead writes until ctx ends.
func (c *controller) lead(ctx context.Context) error {
	for !c.synced.Load() {
		if !pause(ctx, syncPoll) {
			return nil
		}
	}
	c.log.Info("leading")
	c.engine.Lead(true)
	defer c.engine.Lead(false)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.events.Run(ctx) })
	group.Go(func() error { return (&statusWriter{engine: c.engine, log: c.log}).Run(ctx) })
	group.Go(func() error { return c.claims.Run(ctx) })
	group.Go(func() error { return c.ledger.Run(ctx) })
	group.Go(func() error { c.engine.clock(ctx); return nil })
	group.Go(func() error { c.engine.pool(ctx, c.crew, c.api, c.tell); return nil })
	for _, f := range c.forms {
		if f.beside != nil {
			group.Go(func() error { return f.beside.run(ctx) })
		}
	}
	return group.Wait()
}

// tell passes on what a write brought about.
func (c *controller) tell(node stripped, t readiness.Transition) {
	c.events.transition(node.Node, t)
	c.engine.upstream.transition(node, &t, c.engine.now())
}

// syncPoll is how often a new leader looks whether its first lists have come; a warm standby never waits for it.
const syncPoll = 10 * time.Millisecond

// ready fails until the replica could take over at once.
func (c *controller) ready(*http.Request) error {
	if !c.synced.Load() {
		return errors.New("rules and nodes have not been listed yet")
	}
	return nil
}

// stuckAfter is how long writers may be busy without one request ending: several times the deadline of a request.
const stuckAfter = time.Minute

// healthy fails where nodes wait to be written and no writer gets anywhere.
func (c *controller) healthy(*http.Request) error {
	waiting, since := c.engine.waiting()
	if waiting > 0 && time.Since(since) > stuckAfter {
		return fmt.Errorf("%d nodes wait to be written and none has been for %s", waiting, time.Since(since).Round(time.Second))
	}
	return nil
}
