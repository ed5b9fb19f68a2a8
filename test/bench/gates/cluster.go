package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

const (
	gateName = "example.com/bench"
	image    = "registry.example/shop/app:v1"
	// imagesOfANode is how many images each node has warm: a busy node's inventory.
	imagesOfANode = 60
)

// prepare makes namespaces, nodes and the policy.
func (b *bench) prepare(ctx context.Context) error {
	for _, name := range []string{namespaceBare, namespaceOurs} {
		_, err := b.typed.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	if err := b.each(ctx, b.size.nodes, b.createNode); err != nil {
		return err
	}
	policy := &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, Spec: v1alpha1.GatePolicySpec{
		GateName: gateName, Deadline: &metav1.Duration{Duration: time.Hour},
		Requires: []v1alpha1.Requirement{{Images: &v1alpha1.ImagesRequirement{MinNodes: 1}}, {References: &v1alpha1.ReferencesRequirement{}}},
	}}
	if err := b.client.Create(ctx, policy); err != nil {
		return fmt.Errorf("create policy: %w", err)
	}
	fmt.Fprintf(b.out, "%d nodes and the policy are there\n", b.size.nodes)
	return nil
}

// each runs do for 0..n-1 on as many goroutines as there are clients.
func (b *bench) each(ctx context.Context, n int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.size.clients)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

func (b *bench) createNode(ctx context.Context, i int) error {
	inventory := prepull.Inventory{Snapshotter: "overlayfs", Warm: []prepull.InventoryImage{{Digest: "0123456789abcdef", Name: image}}}
	for n := range imagesOfANode - 1 {
		inventory.Warm = append(inventory.Warm, prepull.InventoryImage{Digest: fmt.Sprintf("%016x", n), Name: fmt.Sprintf("registry.example/team-%d/service:v%d", n, n)})
	}
	text, err := inventory.Encode()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("node-%d", i)
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Annotations: map[string]string{readiness.AnnotationImages: text},
		},
		Status: corev1.NodeStatus{Allocatable: room, Capacity: room, Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"},
		}},
	}
	if _, err := b.typed.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create node %s: %w", name, err)
	}
	return nil
}

func (b *bench) createPods(ctx context.Context, namespace string, n int, fact string) ([]corev1.Pod, error) {
	pods := make([]corev1.Pod, n)
	err := b.each(ctx, n, func(ctx context.Context, i int) error {
		pod, err := b.createPod(ctx, namespace, fmt.Sprintf("web-%d", i), fact)
		if err != nil {
			return err
		}
		pods[i] = *pod
		return nil
	})
	return pods, err
}

func (b *bench) createPod(ctx context.Context, namespace, name, fact string) (*corev1.Pod, error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64), SchedulingGates: []corev1.PodSchedulingGate{{Name: gateName}},
			Containers: []corev1.Container{{
				Name: "app", Image: image,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("512Mi"),
				}},
				EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: fact}}}},
			}},
		},
	}
	created, err := b.typed.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create pod %s/%s: %w", namespace, name, err)
	}
	return created, nil
}

func (b *bench) configMap(ctx context.Context, namespace, name string) error {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if _, err := b.typed.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create ConfigMap %s/%s: %w", namespace, name, err)
	}
	return nil
}

// watchChanges names pods as they are modified. It watches metadata only, the same for both waves.
func (b *bench) watchChanges(ctx context.Context, namespace string) (<-chan string, error) {
	getter := b.meta.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace)
	list, err := getter.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	watcher, err := getter.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	out := make(chan string, 2*b.size.pods)
	go func() {
		defer watcher.Stop()
		for event := range watcher.ResultChan() {
			if object, ok := event.Object.(metav1.Object); ok && event.Type == watch.Modified {
				out <- object.GetName()
			}
		}
	}()
	return out, nil
}

// awaitWaiting waits until the policy counts the pods and its status has come to rest.
func (b *bench) awaitWaiting(ctx context.Context, want int) error {
	ctx, cancel := context.WithTimeout(ctx, rampUp)
	defer cancel()
	for {
		policy := &v1alpha1.GatePolicy{}
		if err := b.client.Get(ctx, client.ObjectKey{Name: "bench"}, policy); err != nil {
			return fmt.Errorf("read policy: %w", err)
		}
		if int(policy.Status.WaitingPods) == want {
			return pause(ctx, 2*time.Second)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the controller to see %d pods, it sees %d: %w", want, policy.Status.WaitingPods, err)
		}
	}
}

// mutations counts the mutating requests that the API server has answered, without events and leases.
func (b *bench) mutations(ctx context.Context) (float64, error) {
	text, err := b.typed.CoreV1().RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", "text/plain").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	total := 0.0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "apiserver_request_total{") || strings.Contains(line, `resource="events"`) || strings.Contains(line, `resource="leases"`) {
			continue
		}
		if !strings.Contains(line, `verb="PATCH"`) && !strings.Contains(line, `verb="POST"`) && !strings.Contains(line, `verb="PUT"`) && !strings.Contains(line, `verb="DELETE"`) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read metrics: %w", err)
		}
		total += value
	}
	return total, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
