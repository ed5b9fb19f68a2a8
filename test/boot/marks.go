package boot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// Mark is one thing that happens in a boot.
type Mark string

// The marks, in the order in which a boot usually comes by them.
const (
	PodCreated     Mark = "pod created, no node for it"
	MachineOn      Mark = "machine on, containerd serves"
	AgentStarted   Mark = "headstart-agent started"
	KubeletStarted Mark = "kubelet started"
	NodeRegistered Mark = "node registered"
	ImageOnNode    Mark = "image on the node, unpacked"
	ConfigWritten  Mark = "ConfigMap written"
	CNIWritten     Mark = "CNI configuration written"
	ImagesReady    Mark = "headstart.dev/ImagesReady is True"
	CNIReady       Mark = "headstart.dev/CNIReady is True"
	NodeReady      Mark = "node Ready"
	TaintReleased  Mark = "startup taint released"
	GatesLifted    Mark = "scheduling gates lifted"
	PodScheduled   Mark = "pod scheduled"
	PodRunning     Mark = "pod Running"
)

// Marks are all marks in the order in which to show them.
func Marks() []Mark {
	return []Mark{
		PodCreated, MachineOn, AgentStarted, KubeletStarted, NodeRegistered, ImageOnNode, ConfigWritten, CNIWritten,
		ImagesReady, CNIReady, NodeReady, TaintReleased, GatesLifted, PodScheduled, PodRunning,
	}
}

// recorder remembers when each mark was first seen.
type recorder struct {
	start  time.Time
	onMark func(Mark, time.Duration)

	mu      sync.Mutex
	seen    map[Mark]time.Duration
	changed chan struct{} // closed and replaced at every new mark
}

func newRecorder(onMark func(Mark, time.Duration)) *recorder {
	return &recorder{start: time.Now(), onMark: onMark, seen: map[Mark]time.Duration{}, changed: make(chan struct{})}
}

// mark records m unless it was seen before.
func (r *recorder) mark(m Mark) {
	at := time.Since(r.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, seen := r.seen[m]; seen {
		return
	}
	r.seen[m] = at
	close(r.changed)
	r.changed = make(chan struct{})
	if r.onMark != nil {
		r.onMark(m, at)
	}
}

// wait returns when all of marks have been seen.
func (r *recorder) wait(ctx context.Context, marks ...Mark) error {
	for {
		r.mu.Lock()
		changed := r.changed
		missing := slices.DeleteFunc(slices.Clone(marks), func(m Mark) bool { _, seen := r.seen[m]; return seen })
		r.mu.Unlock()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", missing[0], context.Cause(ctx))
		case <-changed:
		}
	}
}

// all returns the marks seen so far.
func (r *recorder) all() map[Mark]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen)
}

// watchNode marks what the node's object tells.
func (r *recorder) watchNode(ctx context.Context, client kubernetes.Interface, name string, headstart bool) error {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	watcher, err := client.CoreV1().Nodes().Watch(ctx, options)
	if err != nil {
		return fmt.Errorf("watch node %q: %w", name, err)
	}
	return r.watch(ctx, watcher, func(event watch.Event) {
		if node, ok := event.Object.(*corev1.Node); ok {
			r.lookAtNode(node, headstart)
		}
	})
}

func (r *recorder) lookAtNode(node *corev1.Node, headstart bool) {
	r.mark(NodeRegistered)
	for _, condition := range node.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			continue
		}
		switch condition.Type {
		case corev1.NodeReady:
			r.mark(NodeReady)
		case "headstart.dev/ImagesReady":
			r.mark(ImagesReady)
		case "headstart.dev/CNIReady":
			r.mark(CNIReady)
		default:
		}
	}
	tainted := slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == taintKey })
	if headstart && !tainted {
		r.mark(TaintReleased)
	}
}

// watchPod marks what the pod's object tells.
func (r *recorder) watchPod(ctx context.Context, client kubernetes.Interface, name string, gated bool) error {
	watcher, err := client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return fmt.Errorf("watch pod %q: %w", name, err)
	}
	return r.watch(ctx, watcher, func(event watch.Event) {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return
		}
		if gated && len(pod.Spec.SchedulingGates) == 0 {
			r.mark(GatesLifted)
		}
		if pod.Spec.NodeName != "" {
			r.mark(PodScheduled)
		}
		if pod.Status.Phase == corev1.PodRunning {
			r.mark(PodRunning)
		}
	})
}

// watch calls look for every event until ctx ends.
func (r *recorder) watch(ctx context.Context, watcher watch.Interface, look func(watch.Event)) error {
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-watcher.ResultChan():
			if !open {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("watch: the API server ended it")
			}
			look(event)
		}
	}
}
