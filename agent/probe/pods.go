package probe

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podsapi "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"headstart.dev/readiness"
)

const (
	// firstRedial and lastRedial bound the time between two attempts to reach the kubelet; its socket's folder is watched
	// besides. A kubelet that has just started refuses to answer until it has heard of all its pods.
	firstRedial = 100 * time.Millisecond
	lastRedial  = 30 * time.Second
	// syncTimeout bounds the wait for the first list of a stream.
	syncTimeout = 10 * time.Second
	// maxPods is many times what a node may run.
	maxPods = 4096
)

// Pods are the pods of this node as its kubelet tells them over the PodsAPI socket (KEP-4188, on from Kubernetes 1.37):
// they cost the API server nothing. An older kubelet has no such socket, and then they stay unknown. All methods are safe
// for concurrent use.
type Pods struct {
	socket string

	mu    sync.Mutex
	byUID map[types.UID]readiness.Pod
	// lost is when the stream that the pods came by ended; zero while it lasts.
	lost time.Time
	// news is closed with the next change.
	news chan struct{}
}

// NewPods makes the pods of the kubelet whose root folder is kubeletDir. They are unknown until Run.
func NewPods(kubeletDir string) *Pods {
	return &Pods{socket: filepath.Join(kubeletDir, "pods-api", "pods-api.sock"), news: make(chan struct{})}
}

// List returns the pods, and whether they are known: a kubelet that went away less than grace ago is taken at its last
// word. changed is closed when that is out of date.
func (p *Pods) List(grace time.Duration) (pods []readiness.Pod, known bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byUID == nil || !p.lost.IsZero() && time.Since(p.lost) > grace {
		return nil, false, p.news
	}
	pods = make([]readiness.Pod, 0, len(p.byUID))
	for _, pod := range p.byUID {
		pods = append(pods, pod)
	}
	return pods, true, p.news
}

// Run follows the kubelet until ctx ends, through as many of its restarts as there are. It returns an error when it cannot
// watch the socket's folder.
func (p *Pods) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	appeared := make(chan struct{}, 1)
	watched := make(chan error, 1)
	go func() {
		watched <- watchDirs(ctx, func() {
			select {
			case appeared <- struct{}{}:
			default:
			}
		}, filepath.Dir(p.socket))
		cancel()
	}()
	delay := firstRedial
	for {
		if p.follow(ctx) {
			delay = firstRedial
		}
		woken, alive := waitOrWake(ctx, delay, appeared)
		if !alive {
			return <-watched
		}
		if delay = min(2*delay, lastRedial); woken {
			delay = firstRedial
		}
	}
}

// follow takes over one stream until it ends, and says whether it had a first list.
func (p *Pods) follow(ctx context.Context) (synced bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(syncTimeout, cancel)
	defer late.Stop()
	conn, err := dialGRPC(ctx, "unix://"+p.socket)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	stream, err := podsapi.NewPodsClient(conn).WatchPods(ctx, &podsapi.WatchPodsRequest{})
	if err != nil {
		return false
	}
	listed := map[types.UID]readiness.Pod{}
	for {
		event, err := stream.Recv()
		if err != nil {
			if synced {
				p.update(func() { p.lost = time.Now() })
			}
			return synced
		}
		switch {
		case event.GetType() == podsapi.EventType_INITIAL_SYNC_COMPLETE:
			late.Stop()
			synced = true
			p.update(func() { p.byUID, p.lost = listed, time.Time{} })
		case !synced:
			take(listed, event)
		default:
			p.update(func() { take(p.byUID, event) })
		}
	}
}

func (p *Pods) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.news)
	p.news = make(chan struct{})
}

// take applies one event of the kubelet's. What does not decode is left out.
func take(pods map[types.UID]readiness.Pod, event *podsapi.WatchPodsEvent) {
	uid, pod, err := ParsePod(event.GetPod())
	switch {
	case err != nil:
	case event.GetType() == podsapi.EventType_DELETED:
		delete(pods, uid)
	case event.GetType() == podsapi.EventType_ADDED || event.GetType() == podsapi.EventType_MODIFIED:
		if _, known := pods[uid]; known || len(pods) < maxPods {
			pods[uid] = pod
		}
	}
}

// ParsePod decodes a pod of the kubelet's, and keeps what a rule can ask about.
func ParsePod(raw []byte) (types.UID, readiness.Pod, error) {
	var in corev1.Pod
	if err := in.Unmarshal(raw); err != nil {
		return "", readiness.Pod{}, fmt.Errorf("decode pod: %w", err)
	}
	out := readiness.Pod{Namespace: in.Namespace, Name: in.Name, Labels: in.Labels, Terminating: in.DeletionTimestamp != nil}
	if owner := metav1.GetControllerOf(&in); owner != nil && owner.Kind == "DaemonSet" {
		out.DaemonSet = owner.Name
	}
	for i := range in.Status.Conditions {
		if c := &in.Status.Conditions[i]; c.Type == corev1.PodReady {
			out.Ready, out.Changed = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	return in.UID, out, nil
}
