package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness/v1alpha1"
	"headstart.dev/test/testenv"
)

type bench struct {
	settings *settings
	plane    *testenv.ControlPlane
	nodes    int
	rules    int

	client      kubernetes.Interface
	watcher     kubernetes.Interface
	metadata    metadata.ResourceInterface
	rulesClient client.Client
	seen        *observer
}

func newBench(s *settings, plane *testenv.ControlPlane, nodes, rules int) (*bench, error) {
	rc := rest.CopyConfig(plane.Config())
	rc.QPS, rc.Burst = -1, -1
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	typed, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(rc)
	if err != nil {
		return nil, err
	}
	// A connection of its own for the watch: the writers' answers must not stand in its way.
	watching := rest.CopyConfig(rc)
	watching.NextProtos = []string{"http/1.1"}
	watcher, err := kubernetes.NewForConfig(watching)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	rulesClient, err := client.New(plane.Config(), client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return &bench{
		settings: s, plane: plane, nodes: nodes, rules: rules, client: typed, watcher: watcher, rulesClient: rulesClient,
		metadata: meta.Resource(corev1.SchemeGroupVersion.WithResource("nodes")), seen: newObserver(),
	}, nil
}

// measure runs all phases of one size.
func (b *bench) measure(ctx context.Context) (*result, error) {
	r := &result{nodes: b.nodes, rules: b.rules}
	if err := b.createFleet(ctx); err != nil {
		return nil, fmt.Errorf("create nodes: %w", err)
	}
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	if err := b.seen.watch(watchCtx, b.watcher); err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	if err := b.measureSelf(ctx, r); err != nil {
		return nil, fmt.Errorf("writers alone: %w", err)
	}
	if err := b.resetFleet(ctx); err != nil {
		return nil, fmt.Errorf("reset nodes: %w", err)
	}
	if err := b.createRules(ctx); err != nil {
		return nil, fmt.Errorf("create rules: %w", err)
	}
	p, err := b.startController(ctx, "wave")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if err := b.measureWave(ctx, r, p); err != nil {
		return nil, fmt.Errorf("wave: %w", err)
	}
	if b.settings.paced > 0 {
		if err := b.measurePaced(ctx, r); err != nil {
			return nil, fmt.Errorf("paced wave: %w", err)
		}
	}
	r.cpu, r.peak = p.usage()
	p.stop()
	if err := b.measureRestart(ctx, r); err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	return r, nil
}

// measureSelf is the peer: the writers take the taint off themselves, right after each flip.
func (b *bench) measureSelf(ctx context.Context, r *result) error {
	b.seen.reset(b.nodes)
	start := time.Now()
	err := b.each(ctx, b.nodes, func(ctx context.Context, i int) error {
		if err := b.patch(ctx, i, types.StrategicMergePatchType, flipPatch(corev1.ConditionTrue), "status"); err != nil {
			return err
		}
		return b.patch(ctx, i, types.MergePatchType, []byte(`{"spec":{"taints":null}}`))
	})
	if err != nil {
		return err
	}
	r.selfDone = time.Since(start)
	if err := b.seen.wait(ctx); err != nil {
		return err
	}
	r.self = b.seen.last().Sub(start)
	return nil
}

// measureWave flips all nodes as fast as the API server takes it.
func (b *bench) measureWave(ctx context.Context, r *result, p *process) error {
	before, err := b.requests(ctx)
	if err != nil {
		return err
	}
	b.seen.reset(b.nodes)
	cpu, _ := p.usage()
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, p, "profile?seconds=5") }()
	start := time.Now()
	flips, err := b.flip(ctx, b.nodes, 0)
	if err != nil {
		return err
	}
	r.flips = time.Since(start)
	if err := b.seen.wait(ctx); err != nil {
		return err
	}
	r.release = b.seen.last().Sub(start)
	cpuAfter, _ := p.usage()
	r.waveCPU = cpuAfter - cpu
	r.wave, r.watch = latencies(flips, b.seen.times()), latencies(flips, b.seen.flipTimes())
	if r.inside, err = p.released(ctx); err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	if err := errors.Join(<-profiled, b.profile(ctx, p, "heap")); err != nil {
		return fmt.Errorf("profile controller: %w", err)
	}
	// Statuses and events come after the last release: they are counted too.
	if err := sleep(ctx, afterWave); err != nil {
		return err
	}
	after, err := b.requests(ctx)
	if err != nil {
		return err
	}
	r.requests = after.since(before)
	return nil
}

// afterWave is how long what follows a wave is counted.
const afterWave = 8 * time.Second

// measurePaced flips some nodes at a steady pace.
func (b *bench) measurePaced(ctx context.Context, r *result) error {
	if err := b.resetUnderController(ctx); err != nil {
		return err
	}
	n := min(b.settings.paced, b.nodes)
	b.seen.reset(n)
	flips, err := b.flip(ctx, n, time.Second/pacedRate)
	if err != nil {
		return err
	}
	if err := b.seen.wait(ctx); err != nil {
		return err
	}
	r.paced = latencies(flips, b.seen.times())
	return nil
}

// resetUnderController makes the nodes anew, so that a bootstrap begins again: the controller runs.
func (b *bench) resetUnderController(ctx context.Context) error {
	n := min(b.settings.paced, b.nodes)
	err := b.each(ctx, n, func(ctx context.Context, i int) error {
		return b.client.CoreV1().Nodes().Delete(ctx, nodeName(i), metav1.DeleteOptions{})
	})
	if err != nil {
		return err
	}
	all := b.nodes
	b.nodes = n
	err = b.createFleet(ctx)
	b.nodes = all
	if err != nil {
		return err
	}
	return sleep(ctx, 2*time.Second)
}

// flip reports ready for nodes 0..n-1, at most one each interval, and returns when each answer came.
func (b *bench) flip(ctx context.Context, n int, interval time.Duration) (map[string]time.Time, error) {
	at := make(map[string]time.Time, n)
	var mu sync.Mutex
	var pace <-chan time.Time
	if interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		pace = ticker.C
	}
	err := b.each(ctx, n, func(ctx context.Context, i int) error {
		if pace != nil {
			<-pace
		}
		if err := b.patch(ctx, i, types.StrategicMergePatchType, flipPatch(corev1.ConditionTrue), "status"); err != nil {
			return err
		}
		now := time.Now()
		mu.Lock()
		at[nodeName(i)] = now
		mu.Unlock()
		return nil
	})
	return at, err
}

// latencies are from the answer to a flip to what was seen of it, sorted. What was seen before the answer counts as 0.
func latencies(flips, seen map[string]time.Time) []time.Duration {
	var out []time.Duration
	for name, at := range seen {
		out = append(out, max(0, at.Sub(flips[name])))
	}
	slices.Sort(out)
	return out
}

// measureRestart starts the controller on a fleet that needs nothing.
func (b *bench) measureRestart(ctx context.Context, r *result) error {
	before, err := b.requests(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	p, err := b.startController(ctx, "restart")
	if err != nil {
		return err
	}
	defer p.stop()
	r.restart = time.Since(start)
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	_, r.restartPeak = p.usage()
	if err := b.profile(ctx, p, "heap"); err != nil {
		return fmt.Errorf("profile controller: %w", err)
	}
	after, err := b.requests(ctx)
	if err != nil {
		return err
	}
	r.restartWrites = after.since(before)["nodes"]
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
