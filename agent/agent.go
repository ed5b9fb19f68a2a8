package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/agent/internal/kubelet"
	"headstart.dev/agent/internal/nodestatus"
	"headstart.dev/agent/internal/systemd"
	"headstart.dev/agent/policy"
	"headstart.dev/agent/probe"
	"headstart.dev/agent/timeline"
	"headstart.dev/prepull"
)

// TimelineFile is the timeline's name in the state folder.
const TimelineFile = "timeline.json"

// Puller brings images to the node. Run returns when every image is settled or ctx has ended; it reports each change to
// the Observer that it was made with.
type Puller interface {
	Run(ctx context.Context) error
	// SetImages replaces what is wanted; what is wanted no longer is given up.
	SetImages(images []prepull.Image)
}

// Options are what an Agent is made of.
type Options struct {
	Config Config
	// NewPuller makes the puller of the config's images; nil when there is none to pull.
	NewPuller func(prepull.Observer) (Puller, error)
	Log       logr.Logger
	Registry  *prometheus.Registry
	// Once ends Run as soon as everything that is configured is ready.
	Once bool
}

// Agent is the on-node loop. Make it with New.
type Agent struct {
	config    Config
	once      bool
	log       logr.Logger
	registry  *prometheus.Registry
	node      string
	state     *state
	probes    []Prober
	puller    Puller
	policies  *policy.Watcher // nil where nothing is pulled
	publisher *nodestatus.Publisher
	csiNode   *CSINode
	settled   chan struct{}
	// working says that the lock is held.
	working  atomic.Bool
	patience patience
}

// New checks what can be checked before anything runs. It touches neither the network nor the disk, but for reading an
// earlier timeline of this boot.
func New(options Options) (*Agent, error) {
	csiNode := newCSINode(nodestatus.Target{Kubeconfig: options.Config.Kubeconfig})
	probes, err := Probers(options.Config, csiNode)
	if err != nil {
		return nil, err
	}
	node := options.Config.NodeName
	if node == "" {
		if node, err = kubelet.NodeName(); err != nil {
			return nil, fmt.Errorf("find the node's name, set nodeName: %w", err)
		}
	}
	bootID, err := timeline.BootID()
	if err != nil {
		return nil, err
	}
	a := &Agent{
		config: options.Config, once: options.Once, log: options.Log, registry: options.Registry, node: node, probes: probes, csiNode: csiNode, patience: defaultPatience,
		settled: make(chan struct{}, 1),
	}
	m := newMetrics(options.Registry)
	recorder := timeline.NewRecorder(filepath.Join(a.config.StateDir, TimelineFile), a.config.NodeName, bootID)
	a.state = newState(a.config, probes, recorder, m)
	a.publisher = nodestatus.New(a.state, a.log.WithName("publish"), m.published)
	a.state.progress = func() {
		select {
		case a.settled <- struct{}{}:
		default:
		}
	}
	a.state.changed = func() { a.publisher.Notify(); a.state.progress() }
	if options.NewPuller == nil || len(a.config.Images) == 0 && !nodestatus.Configured(a.target()) {
		return a, nil
	}
	if a.puller, err = options.NewPuller(a.state.observeImage); err != nil {
		return nil, err
	}
	a.followPolicies()
	return a, nil
}

// Run gathers and publishes until ctx ends, or, with Once, until everything is ready. Then it returns nil; with Once it
// returns an error when something can never be ready.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := a.register(); err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	running.Go(func() { a.serveMetrics(ctx) })
	locks, err := a.lock(ctx)
	if err != nil {
		if ctx.Err() != nil && !a.once {
			return nil
		}
		return err
	}
	defer func() { _ = locks.Close() }()
	a.working.Store(true)
	running.Go(func() { a.serveSocket(ctx) })
	running.Go(func() { a.watchLock(ctx, locks, cancel) })
	if err := a.begin(ctx); err != nil {
		return err
	}
	running.Go(func() { a.save(ctx) })
	running.Go(func() { a.publish(ctx) })
	running.Go(func() { systemd.Watch(ctx, func() { a.state.reported() }) })
	for _, p := range a.probes {
		running.Go(func() { a.probe(ctx, p) })
	}
	if a.puller != nil {
		running.Go(func() {
			if err := a.puller.Run(ctx); err != nil && ctx.Err() == nil {
				a.log.Error(err, "pull images")
			}
		})
	}
	if err := systemd.Notify("READY=1"); err != nil {
		a.log.Info("tell systemd that we run", "cause", err.Error())
	}
	err = a.wait(ctx)
	cancel(nil)
	running.Wait()
	return errors.Join(err, a.state.recorder.Save())
}

// wait blocks until ctx ends, or with Once until all is settled.
func (a *Agent) wait(ctx context.Context) error {
	mustPublish := nodestatus.Configured(a.target())
	ready := false
	for {
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); errors.Is(cause, errSuperseded) {
				return cause
			}
			if a.once {
				return errors.New("stopped before everything was ready")
			}
			return nil
		case <-a.settled:
			done, err := a.state.settled(mustPublish)
			if done && !ready {
				a.log.Info("everything is ready", "node", a.state.recorder.Timeline().Node)
			}
			ready = done
			if a.once && (done || err != nil) {
				return err
			}
		}
	}
}

func (a *Agent) probe(ctx context.Context, p Prober) {
	a.state.recorder.Begin(timeline.Probe, p.Name)
	runner := probe.Runner{
		Checker: p.Checker, Settings: p.Settings,
		Report: func(result probe.Result) {
			a.log.Info("probe changed", "probe", p.Name, "status", result.Status, "reason", result.Reason, "message", result.Message)
			a.state.observeProbe(p, result)
		},
		WatchFailed: func(err error) {
			a.log.Info("cannot watch, looks by time alone", "probe", p.Name, "cause", err.Error())
		},
	}
	runner.Run(ctx)
}

// target is where and as whom to publish.
func (a *Agent) target() nodestatus.Target {
	return nodestatus.Target{Kubeconfig: a.config.Kubeconfig, NodeName: a.config.NodeName, Fallback: a.node}
}

func (a *Agent) publish(ctx context.Context) {
	watch := a.policyWatch(ctx)
	defer watch(nil)
	runners := newRuleRunners(a, ctx)
	rules := nodestatus.NewRuleFollower(a.log)
	a.state.onNode = append(a.state.onNode, runners.setNode, rules.NodeSeen, a.csiNode.nodeSeen)
	var following sync.WaitGroup
	a.publisher.Serve(ctx, a.target(), func(connection context.Context, c nodestatus.Connected) {
		a.log.Info("publishing", "node", c.Name, "identity", c.Identity)
		a.state.recorder.SetNode(c.Name)
		watch(c.Credentials)
		if err := a.csiNode.connect(c); err != nil {
			a.log.Error(err, "follow the kubelet's drivers")
		}
		following.Go(func() { a.followRules(connection, c, rules, runners) })
	})
	following.Wait()
	runners.wait.Wait()
}

// saveDelay gathers changes of the timeline into one write.
const saveDelay = 50 * time.Millisecond

// save writes the timeline file after changes, and counts the phases.
func (a *Agent) save(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.state.recorder.Changed():
		}
		timer := time.NewTimer(saveDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		a.state.observePhases()
		if err := a.state.recorder.Save(); err != nil {
			a.log.Error(err, "keep the timeline")
		}
		// The annotation is due too; it rides along with the next patch.
		a.publisher.Notify()
	}
}
