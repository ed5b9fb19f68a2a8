package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"headstart.dev/prepull"
	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/warm"
	"headstart.dev/readiness"
)

// podStarts measures how long pods take from scheduled to running, apart where all their images were there when they
// were scheduled. It watches only pods that are bound and do not run yet, a handful however large the cluster is; a pod
// that leaves that watch is read once from the API server's cache, to tell one that runs from one that was deleted.
type podStarts struct {
	client   kubernetes.Interface
	warm     func(node string, wants ...warm.Want) bool
	duration *prometheus.HistogramVec
	left     chan leftPod

	mu sync.Mutex
	// bound are the pods whose binding was seen; one that was bound before has no beginning to measure from.
	bound map[types.UID]boundPod
}

type boundPod struct {
	at   time.Time
	warm bool
}

// leftPod is a pod that is not pending any more.
type leftPod struct {
	key  types.NamespacedName
	uid  types.UID
	took time.Duration
	warm bool
}

// leftQueue is how many pods may wait to be read; what is over is not measured.
const leftQueue = 1024

// selectStarting selects pods that are bound and do not run yet.
var selectStarting = fields.AndSelectors(
	fields.OneTermNotEqualSelector("spec.nodeName", ""), fields.OneTermEqualSelector("status.phase", string(corev1.PodPending)))

// notOfAWarmPool leaves out the pods that hold a warm pool's room: they are ours, and what they start with is nobody's work.
const notOfAWarmPool = "!" + readiness.LabelWarmPool

func newPodStarts(reg prometheus.Registerer, client kubernetes.Interface, has func(node string, wants ...warm.Want) bool) (*podStarts, error) {
	s := &podStarts{
		client: client, warm: has, left: make(chan leftPod, leftQueue), bound: map[types.UID]boundPod{},
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "headstart_pod_start_seconds",
			Help: "From a pod's binding to a node to its running, by whether the node had all its images, whole, by then.",
			// From a pod with everything there (half a second) to one that pulls tens of gigabytes.
			Buckets: []float64{0.25, 0.5, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 600},
		}, []string{"warm"}),
	}
	for _, value := range []string{"true", "false"} {
		s.duration.WithLabelValues(value)
	}
	if reg == nil {
		return s, nil
	}
	if err := reg.Register(s.duration); err != nil {
		return nil, fmt.Errorf("register the metric of pod starts: %w", err)
	}
	return s, nil
}

// run measures until ctx ends.
func (s *podStarts) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.settle(ctx) })
	lw := cache.NewFilteredListWatchFromClient(s.client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector, o.LabelSelector = selectStarting.String(), notOfAWarmPool
	})
	feed.Run(ctx, "starting pods", lw, &corev1.Pod{}, feed.Handler[*corev1.Pod]{
		Replace: func(list []*corev1.Pod) { s.keep(list) },
		Set:     func(pod *corev1.Pod) { s.seen(pod, time.Now()) },
		Delete:  func(pod *corev1.Pod) { s.leaves(pod, time.Now()) },
	})
}

// keep forgets pods that left while the watch was lost. Those that are new to it were bound at an unknown time.
func (s *podStarts) keep(list []*corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bound
	s.bound = make(map[types.UID]boundPod, len(list))
	for _, pod := range list {
		s.bound[pod.UID] = before[pod.UID]
	}
}

// seen notes the binding of a pod.
func (s *podStarts) seen(pod *corev1.Pod, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.bound[pod.UID]; !known {
		s.bound[pod.UID] = boundPod{at: now, warm: s.warm(pod.Spec.NodeName, imagesOf(pod)...)}
	}
}

// leaves has a pod read that is not pending any more.
func (s *podStarts) leaves(pod *corev1.Pod, now time.Time) {
	s.mu.Lock()
	begun := s.bound[pod.UID]
	delete(s.bound, pod.UID)
	s.mu.Unlock()
	if begun.at.IsZero() || pod.DeletionTimestamp != nil {
		return
	}
	select {
	case s.left <- leftPod{
		key: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID, took: now.Sub(begun.at), warm: begun.warm,
	}:
	default:
	}
}

// settle tells pods that run from those that are gone.
func (s *podStarts) settle(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case left := <-s.left:
			if s.runs(ctx, left) {
				s.duration.WithLabelValues(fmt.Sprint(left.warm)).Observe(left.took.Seconds())
			}
		}
	}
}

func (s *podStarts) runs(ctx context.Context, left leftPod) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// Version 0: what the API server has in memory will do, it is where the event came from.
	pod, err := s.client.CoreV1().Pods(left.key.Namespace).Get(ctx, left.key.Name, metav1.GetOptions{ResourceVersion: "0"})
	return err == nil && pod.UID == left.uid && (pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodSucceeded)
}

// imagesOf are the images that a pod needs to run. One that is mounted lazily is not warm: its content comes while the pod
// runs.
func imagesOf(pod *corev1.Pod) []warm.Want {
	var wants []warm.Want
	add := func(image string) {
		name, err := prepull.Normalize(image)
		if err != nil {
			name = image // no node has it
		}
		wants = append(wants, warm.Want{Name: name})
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			add(list[i].Image)
		}
	}
	for i := range pod.Spec.Volumes {
		if source := pod.Spec.Volumes[i].Image; source != nil {
			add(source.Reference)
		}
	}
	return wants
}
