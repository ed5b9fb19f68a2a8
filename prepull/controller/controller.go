package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"

	"headstart.dev/prepull/controller/keychain"
	"headstart.dev/prepull/controller/resolve"
	"headstart.dev/prepull/feed"
	"headstart.dev/readiness/connection"
	"headstart.dev/readiness/health"
	"headstart.dev/readiness/nodewatch"
)

const (
	// defaultSlots is how many nodes of one policy pull at once: with 16 connections each that is what one registry
	// endpoint answers without throttling, and more than Karpenter launches in a wave.
	defaultSlots = 100
	// defaultPatience is for how long a node may hold its slot: 10 GB at 30 MB/s.
	defaultPatience = 5 * time.Minute
)

// Config of a Controller.
type Config struct {
	// REST reaches the API server. Required.
	REST *rest.Config
	// Namespace is where what is learned is stored. Required.
	Namespace string
	Log       logr.Logger
	// Resolver looks tags up; nil means their registries, with the credentials of the process's cloud.
	Resolver Resolver
	// Slots is how many nodes of one policy pull at once; 0 means 100.
	Slots int
	// Patience is for how long a node may hold its slot; 0 means 5m.
	Patience time.Duration
	// Registerer takes the metrics; nil means that nobody does.
	Registerer prometheus.Registerer
	// Nodes is the watch of Nodes that the process shares, started by the caller; nil means one of the controller's own.
	Nodes *nodewatch.Watch
}

// Controller carries out PrepullPolicies. Make it with New.
type Controller struct {
	log       logr.Logger
	policies  *feed.Policies
	nodes     *nodewatch.Watch // the controller's own; nil where it is shared
	client    kubernetes.Interface
	workloads *workloads
	lookups   *lookups
	store     *store
	events    *events
	podStarts *podStarts
	limits    pace
	// work is what the loop and the writers of labels have in hand.
	work health.Work
	// labels writes the Nodes' labels, of the nodes whose names are in steering.
	labels   metadata.ResourceInterface
	steering workqueue.TypedRateLimitingInterface[string]

	mu     sync.Mutex
	byName map[string]*policy
	fleet  *fleet
	// known says which first lists have come.
	knowPolicies, knowNodes bool
	starts                  *starts
	learning                context.CancelFunc
	// targets says that what policies want may have changed, refresh which policies were changed by a user.
	targets bool
	refresh map[string]bool
	// rankAt is when a ranking is due; zero when none is.
	rankAt time.Time
	wake   chan struct{}
}

// SetupWithManager makes a Controller that runs on the leader.
func SetupWithManager(mgr ctrl.Manager, cfg Config) error {
	cfg.REST, cfg.Log = mgr.GetConfig(), mgr.GetLogger().WithName("prepull")
	c, err := New(cfg)
	if err != nil {
		return err
	}
	if err := mgr.Add(c); err != nil {
		return fmt.Errorf("add the prepull controller: %w", err)
	}
	ready := func(*http.Request) error { return c.ready(mgr.Elected()) }
	return errors.Join(mgr.AddReadyzCheck("prepull", ready), mgr.AddHealthzCheck("prepull", c.work.Check))
}

// ready fails on a leader that does not know policies and nodes yet; leads is closed when it leads. A standby reads no
// policies: nobody waits for a prepull that begins a moment later.
func (c *Controller) ready(leads <-chan struct{}) error {
	select {
	case <-leads:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.knowPolicies || !c.knowNodes {
		return errors.New("policies and nodes have not been listed yet")
	}
	return nil
}

// New connects a Controller; nothing is sent before Start.
func New(cfg Config) (*Controller, error) {
	if cfg.REST == nil || cfg.Namespace == "" {
		return nil, errors.New("new prepull controller: REST and Namespace are required")
	}
	c := &Controller{
		log: cfg.Log, byName: map[string]*policy{}, fleet: newFleet(), starts: newStarts(), refresh: map[string]bool{},
		limits: pace{slots: cfg.Slots, patience: cfg.Patience}, wake: make(chan struct{}, 1),
		steering: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](steerInterval, steerMost)),
	}
	if c.limits.slots == 0 {
		c.limits.slots = defaultSlots
	}
	if c.limits.patience == 0 {
		c.limits.patience = defaultPatience
	}
	if cfg.Resolver == nil {
		// In a pod loopback is the pod itself.
		_, inPod := os.LookupEnv("KUBERNETES_SERVICE_HOST")
		cfg.Resolver = resolve.New(resolve.Config{Keychain: keychain.NewCloud(), Loopback: !inPod})
	}
	if err := c.connect(cfg.REST, cfg.Namespace); err != nil {
		return nil, fmt.Errorf("new prepull controller: %w", err)
	}
	var err error
	if c.podStarts, err = newPodStarts(cfg.Registerer, c.client, c.fleet.index.Has); err != nil {
		return nil, fmt.Errorf("new prepull controller: %w", err)
	}
	if cfg.Nodes == nil {
		if c.nodes, err = nodewatch.New(cfg.REST); err != nil {
			return nil, fmt.Errorf("new prepull controller: %w", err)
		}
		cfg.Nodes = c.nodes
	}
	c.followNodes(cfg.Nodes)
	c.lookups = newLookups(cfg.Resolver, time.Now, c.targetsChanged)
	c.lookups.secrets, c.lookups.report = c.client.CoreV1(), (&reports{client: c.client, having: c.having}).look
	return c, nil
}

// connect makes the clients. Labels are written by a few workers, which need no rate limit on this side.
func (c *Controller) connect(cfg *rest.Config, namespace string) error {
	cfg, err := connection.WatchesApart(cfg)
	if err != nil {
		return err
	}
	writes := rest.CopyConfig(cfg)
	writes.QPS = -1
	labels, err := metadata.NewForConfig(writes)
	if err != nil {
		return fmt.Errorf("reach labels of nodes: %w", err)
	}
	c.labels = labels.Resource(corev1.SchemeGroupVersion.WithResource("nodes"))
	if c.policies, err = feed.NewPolicies(cfg); err != nil {
		return err
	}
	typed := rest.CopyConfig(cfg)
	typed.ContentType = runtime.ContentTypeProtobuf
	typed.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if c.client, err = kubernetes.NewForConfig(typed); err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	objects, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach workloads: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach discovery: %w", err)
	}
	c.workloads = newWorkloads(objects, disco, c.targetsChanged)
	c.store = &store{configMaps: c.client.CoreV1(), namespaces: c.client.CoreV1(), namespace: namespace}
	c.events = newEvents(c.client)
	return nil
}

// Start runs until ctx ends, then stores what was learned. It implements controller-runtime's Runnable, and runs on the
// leader alone.
func (c *Controller) Start(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.lookups.run(ctx) })
	wg.Go(func() { c.events.run(ctx) })
	wg.Go(func() { c.followPolicies(ctx) })
	if c.nodes != nil {
		wg.Go(func() { _ = c.nodes.Start(ctx) }) // it returns no error
	}
	wg.Go(func() { c.saveRegularly(ctx) })
	wg.Go(func() { c.podStarts.run(ctx) })
	wg.Go(func() { c.steer(ctx) })
	c.loop(ctx)
	wg.Wait()
	// The context has ended; what was learned in the last minute is worth one more second.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	c.save(last, 0)
	return nil
}

// loop evaluates policies when something has changed.
func (c *Controller) loop(ctx context.Context) {
	for {
		next := c.look(ctx)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// look evaluates what is due, and returns when the next is.
func (c *Controller) look(ctx context.Context) time.Time {
	step := c.work.Begin()
	defer step.End()
	c.retarget(ctx)
	step.Moved()
	return c.evaluate(ctx, step)
}

func (c *Controller) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// targetsChanged makes the loop work out anew what policies want.
func (c *Controller) targetsChanged() {
	c.mu.Lock()
	c.targets = true
	c.mu.Unlock()
	c.nudge()
}
