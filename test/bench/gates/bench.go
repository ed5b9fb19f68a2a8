package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/test/testenv"
)

const (
	namespaceBare = "bare"
	namespaceOurs = "ours"
	// rampUp bounds how long the controller takes to see everything.
	rampUp = 2 * time.Minute
	// lifting bounds one measured wave.
	lifting = 5 * time.Minute
)

// bench is the cluster with its clients.
type bench struct {
	out    io.Writer
	size   size
	plane  *testenv.ControlPlane
	typed  kubernetes.Interface
	meta   metadata.Interface
	client client.Client
}

func start(ctx context.Context, out io.Writer, s size) (*bench, error) {
	plane, err := testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{
		CRDDirs: []string{"deploy/crd"},
		// Nodes here are ready when they are made.
		APIServerArgs: []string{"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition"},
	})
	if err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	b := &bench{out: out, size: s, plane: plane}
	config := rest.CopyConfig(plane.Config())
	config.QPS = -1
	scheme := runtime.NewScheme()
	var errs [5]error
	errs[0], errs[1] = v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme)
	b.client, errs[2] = client.New(config, client.Options{Scheme: scheme})
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	b.typed, errs[3] = kubernetes.NewForConfig(config)
	b.meta, errs[4] = metadata.NewForConfig(config)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(fmt.Errorf("make clients: %w", err), plane.Stop())
	}
	return b, nil
}

func (b *bench) stop() error {
	if err := b.plane.Stop(); err != nil {
		return fmt.Errorf("stop control plane: %w", err)
	}
	return nil
}

// measure does the bare wave first, then the controller's.
func (b *bench) measure(ctx context.Context) (f figures, err error) {
	if err := b.prepare(ctx); err != nil {
		return f, err
	}
	bare, err := b.createPods(ctx, namespaceBare, b.size.pods, "last-fact")
	if err != nil {
		return f, err
	}
	if f.bare, err = b.bareWave(ctx, bare); err != nil {
		return f, err
	}
	fmt.Fprintf(b.out, "bare patches done in %s\n", f.bare.Round(time.Millisecond))
	// What the controller need not see goes away before it starts.
	if err := b.typed.CoreV1().Pods(namespaceBare).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return f, fmt.Errorf("delete the bare pods: %w", err)
	}
	ours, err := b.createPods(ctx, namespaceOurs, b.size.pods, "last-fact")
	if err != nil {
		return f, err
	}
	return f, b.withController(ctx, &f, ours)
}

func (b *bench) withController(ctx context.Context, f *figures, ours []corev1.Pod) error {
	process, err := startChild(ctx, b.plane.Kubeconfig("bench", "system:masters"), b.size.clients)
	if err != nil {
		return err
	}
	err = func() error {
		if err := b.awaitWaiting(ctx, len(ours)); err != nil {
			return err
		}
		fmt.Fprintln(b.out, "the controller has seen all pods")
		latencies, err := b.singles(ctx)
		if err != nil {
			return err
		}
		slices.Sort(latencies)
		f.p50, f.p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
		before, err := b.mutations(ctx)
		if err != nil {
			return err
		}
		if f.ours, err = b.wave(ctx, namespaceOurs, len(ours), func() error { return b.configMap(ctx, namespaceOurs, "last-fact") }); err != nil {
			return err
		}
		after, err := b.mutations(ctx)
		if err != nil {
			return err
		}
		f.requests = (after - before - 1) / float64(len(ours)) // the ConfigMap is ours
		f.memory, err = process.peakMemory()
		return err
	}()
	return errors.Join(err, process.stop())
}

// bareWave patches all pods from as many clients as the controller has, with the patches that it would send.
func (b *bench) bareWave(ctx context.Context, pods []corev1.Pod) (time.Duration, error) {
	patches := make([][]byte, len(pods))
	for i := range pods {
		patches[i] = fmt.Appendf(nil, `{"metadata":{"uid":%q,"resourceVersion":%q},"spec":{"schedulingGates":[{"$patch":"delete","name":%q}],`+
			`"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"preference":{"matchExpressions":[`+
			`{"key":"kubernetes.io/hostname","operator":"In","values":["node-%d"]}]}}]}}}}`, pods[i].UID, pods[i].ResourceVersion, gateName, i%b.size.nodes)
	}
	getter := b.meta.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespaceBare)
	return b.wave(ctx, namespaceBare, len(pods), func() error {
		group, ctx := errgroup.WithContext(ctx)
		for worker := range b.size.clients {
			group.Go(func() error {
				for i := worker; i < len(pods); i += b.size.clients {
					_, err := getter.Patch(ctx, pods[i].Name, types.StrategicMergePatchType, patches[i], metav1.PatchOptions{FieldManager: "bare"})
					if err != nil {
						return fmt.Errorf("patch pod %s: %w", pods[i].Name, err)
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
}

// wave watches a namespace, triggers, and returns the time until every pod has changed.
func (b *bench) wave(ctx context.Context, namespace string, want int, trigger func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lifting)
	defer cancel()
	changed, err := b.watchChanges(ctx, namespace)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(trigger)
	var end time.Time
	group.Go(func() error {
		for seen := map[string]bool{}; len(seen) < want; {
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for %d pods to change, %d have: %w", want, len(seen), context.Cause(ctx))
			case name := <-changed:
				seen[name] = true
			}
		}
		end = time.Now()
		return nil
	})
	err = group.Wait()
	return end.Sub(begin), err
}

// singles lifts pods one by one while all others wait, and returns how long each took from its fact's being written.
func (b *bench) singles(ctx context.Context) ([]time.Duration, error) {
	var out []time.Duration
	changed, err := b.watchChanges(ctx, namespaceOurs)
	if err != nil {
		return nil, err
	}
	for i := range b.size.singles {
		fact := fmt.Sprintf("single-%d", i)
		pod, err := b.createPod(ctx, namespaceOurs, fact, fact)
		if err != nil {
			return nil, err
		}
		// The controller learns of the pod first: what is measured is from the last fact.
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := b.configMap(ctx, namespaceOurs, fact); err != nil {
			return nil, err
		}
		for name := ""; name != pod.Name; {
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for pod %s: %w", pod.Name, context.Cause(ctx))
			case name = <-changed:
			}
		}
		out = append(out, time.Since(begin))
	}
	return out, nil
}
