package boot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
)

// The nodes of Steer.
const (
	WarmNode = "warm-but-busy"
	ColdNode = "cold-and-free"
)

// steerTimeout bounds the whole of Steer: two nodes boot, one of them pulls twice.
const steerTimeout = 4 * time.Minute

// Placed is what became of one pod.
type Placed struct {
	// Node is where it runs.
	Node string
	// Start is the time from its scheduling to its running.
	Start time.Duration
	// PullEvent is the kubelet's message about its image.
	PullEvent string
}

// Steering is one pod twice: lifted by a GatePolicy that steers, and as the scheduler alone places it.
type Steering struct{ Steered, Unsteered Placed }

// Check says whether steering did what it is for.
func (s *Steering) Check() error {
	switch {
	case s.Steered.Node != WarmNode || !strings.Contains(s.Steered.PullEvent, "already present on machine"):
		return fmt.Errorf("the steered pod runs on %s: %s", s.Steered.Node, s.Steered.PullEvent)
	case s.Unsteered.Node != ColdNode || strings.Contains(s.Unsteered.PullEvent, "already present on machine"):
		return fmt.Errorf("the unsteered pod runs on %s: %s", s.Unsteered.Node, s.Unsteered.PullEvent)
	}
	return nil
}

// Steer boots two nodes, one that has the workload's image and half of its CPU in use, and one that has neither, and
// starts the workload's pod twice at the same moment: gated, so that it is steered, and plain.
func (c *Cluster) Steer(ctx context.Context, say func(format string, args ...any)) (*Steering, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, steerTimeout, fmt.Errorf("it took more than %s", steerTimeout))
	defer cancel()
	warm := &run{cluster: c, opts: Options{Name: WarmNode, Headstart: true}, recorder: newRecorder(nil)}
	cold := &run{cluster: c, opts: Options{Name: ColdNode}, recorder: newRecorder(nil)}
	result, err := c.steer(ctx, say, warm, cold)
	if err != nil {
		err = fmt.Errorf("steer a pod: %w\n%s", err, warm.logs(ctx))
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
	defer cancelLast()
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	gone := c.client.CoreV1().Pods(namespace).DeleteCollection(last, now, metav1.ListOptions{})
	return result, errors.Join(err, gone, warm.stop(context.WithoutCancel(ctx)), cold.stop(context.WithoutCancel(ctx)))
}

func (c *Cluster) steer(ctx context.Context, say func(string, ...any), warm, cold *run) (*Steering, error) {
	for _, r := range []*run{warm, cold} {
		if err := r.join(ctx); err != nil {
			return nil, err
		}
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMap}, Data: map[string]string{"COLOUR": "blue"}}
	if _, err := c.client.CoreV1().ConfigMaps(namespace).Create(ctx, config, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("write the ConfigMap: %w", err)
	}
	for _, r := range []*run{warm, cold} {
		if err := c.awaitUsable(ctx, r.opts.Name, r.opts.Headstart); err != nil {
			return nil, err
		}
	}
	say("two nodes are ready: %s has the image, %s does not", WarmNode, ColdNode)
	if err := c.occupy(ctx); err != nil {
		return nil, err
	}
	say("a neighbour takes half of the CPU of %s, so that the scheduler alone prefers %s", WarmNode, ColdNode)
	pods := []*corev1.Pod{workload("steered", c.ImageRef, true), workload("unsteered", c.ImageRef, false)}
	placed := make([]Placed, len(pods))
	for _, pod := range pods {
		if _, err := c.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("create pod %s: %w", pod.Name, err)
		}
	}
	group, watching := errgroup.WithContext(ctx)
	for i, pod := range pods {
		group.Go(func() (err error) {
			placed[i], err = c.awaitPlaced(watching, pod.Name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, pod := range pods {
		say("pod %-9s ran on %s, %.1f s after it was scheduled; %s", pod.Name, placed[i].Node, placed[i].Start.Seconds(), placed[i].PullEvent)
	}
	return &Steering{Steered: placed[0], Unsteered: placed[1]}, nil
}

// join boots the machine and its kubelet with nothing played.
func (r *run) join(ctx context.Context) error {
	var err error
	if r.containerd, err = testenv.NewContainerd(ctx, testenv.ContainerdConfig{Registry: r.cluster.registry}); err != nil {
		return err
	}
	config := testenv.NodeConfig{Name: r.opts.Name, CNI: true}
	if r.opts.Headstart {
		config.Labels = map[string]string{poolLabel: "fast"}
		if config.ConfigDir, err = r.startAgent(ctx); err != nil {
			return err
		}
	}
	r.node, err = testenv.NewNode(ctx, r.cluster.plane, r.containerd, config)
	return err
}

// awaitUsable waits until pods can be placed on a node, and with warm until its agent has published the image.
func (c *Cluster) awaitUsable(ctx context.Context, name string, warm bool) error {
	return c.await(ctx, "node "+name, func() (bool, error) {
		node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read node %s: %w", name, err)
		}
		ready := len(node.Spec.Taints) == 0 && (!warm || strings.Contains(node.Annotations[readiness.AnnotationImages], c.ImageRef))
		for _, condition := range node.Status.Conditions {
			ready = ready && (condition.Type != corev1.NodeReady || condition.Status == corev1.ConditionTrue)
		}
		return ready, nil
	})
}

// occupy lets a neighbour run on the warm node.
func (c *Cluster) occupy(ctx context.Context) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, WarmNode, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node %s: %w", WarmNode, err)
	}
	neighbour := workload("neighbour", c.ImageRef, false)
	neighbour.Spec.NodeName = WarmNode
	half := resource.NewMilliQuantity(node.Status.Allocatable.Cpu().MilliValue()/2, resource.DecimalSI)
	neighbour.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *half
	if _, err := c.client.CoreV1().Pods(namespace).Create(ctx, neighbour, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the neighbour: %w", err)
	}
	_, err = c.awaitPlaced(ctx, neighbour.Name)
	return err
}

// awaitPlaced waits until a pod runs and the kubelet has told of its image.
func (c *Cluster) awaitPlaced(ctx context.Context, name string) (Placed, error) {
	var out Placed
	var scheduled, running time.Time
	err := c.await(ctx, "pod "+name, func() (bool, error) {
		pod, err := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read pod %s: %w", name, err)
		}
		if pod.Spec.NodeName != "" && scheduled.IsZero() {
			scheduled = time.Now()
		}
		if pod.Status.Phase != corev1.PodRunning {
			return false, nil
		}
		if running.IsZero() {
			running = time.Now()
		}
		out.Node, out.Start = pod.Spec.NodeName, running.Sub(scheduled)
		events, err := c.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=Pulled"})
		if err != nil {
			return false, fmt.Errorf("read events of pod %s: %w", name, err)
		}
		if len(events.Items) == 0 {
			return false, nil // they come a moment after what they tell of
		}
		out.PullEvent = events.Items[0].Message
		return true, nil
	})
	return out, err
}

// await polls until done, or until ctx ends.
func (c *Cluster) await(ctx context.Context, what string, done func() (bool, error)) error {
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
