package prepull_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/agent/policy"
	"headstart.dev/prepull"
	"headstart.dev/prepull/controller"
	"headstart.dev/prepull/feed"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
)

const (
	largeFleet = 1000
	// fleetSlots is how many of them pull at once where they take turns.
	fleetSlots = 100
)

// fleet is a thousand agents: the real watch and the real decision of each, as its node's identity; only the pull is
// simulated, and counted.
type fleet struct {
	t       *testing.T
	watcher []*policy.Watcher
	heard   []atomic.Int64 // by node: when it first wanted the newest image, in nanoseconds since the epoch
	newest  atomic.Value   // digest
	writes  atomic.Int64
	meter   *meter

	mu            sync.Mutex
	pulling, most int
	started       map[string]int
}

func (f *fleet) run(ctx context.Context, wg *sync.WaitGroup, i int, name string, cfg *rest.Config) {
	cfg = rest.CopyConfig(cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(f.t, err)
	source, err := feed.NewPolicies(cfg)
	require.NoError(f.t, err)
	var pulls sync.WaitGroup
	w := policy.New(nil, func(images []prepull.Image) {
		if len(images) == 0 || images[0].AtDigest == "" {
			return // before the controller has looked the tag up a node asks the registry itself, which is not what is counted here
		}
		if images[0].AtDigest == f.newest.Load() {
			f.heard[i].CompareAndSwap(0, time.Now().UnixNano())
		}
		pulls.Go(func() { f.pull(ctx, client, name, images) })
	})
	f.watcher[i] = w
	w.SetNode(name, map[string]string{"test": f.t.Name()})
	wg.Go(func() {
		w.Run(ctx, source)
		pulls.Wait()
	})
}

func (f *fleet) pull(ctx context.Context, client kubernetes.Interface, name string, images []prepull.Image) {
	f.mu.Lock()
	f.pulling++
	f.most = max(f.most, f.pulling)
	f.started[images[0].AtDigest]++
	f.mu.Unlock()
	f.meter.pull(ctx, f.t)
	f.mu.Lock()
	f.pulling--
	f.mu.Unlock()
	inv := prepull.Inventory{Snapshotter: "overlayfs"}
	for _, img := range images {
		inv.Warm = append(inv.Warm, prepull.InventoryImage{Name: img.Ref, Digest: prepull.DigestPrefix(img.AtDigest)})
	}
	text, err := inv.Encode()
	if err != nil || ctx.Err() != nil {
		return
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, readiness.AnnotationImages, text)
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err == nil {
		f.writes.Add(1)
	}
}

func (c *cluster) fleetNodes(prefix string, size int) []string {
	c.t.Helper()
	var wg sync.WaitGroup
	names := make([]string, size)
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				err := c.Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
					Name: names[i], Labels: map[string]string{"test": c.t.Name()}, Annotations: map[string]string{readiness.AnnotationImages: "{}"},
				}})
				if err != nil {
					c.t.Error(err)
				}
			}
		})
	}
	for i := range names {
		names[i] = fmt.Sprintf("%s-%04d", prefix, i)
		work <- i
	}
	close(work)
	wg.Wait()
	c.t.Cleanup(func() {
		ctx := context.WithoutCancel(c.t.Context())
		require.NoError(c.t, c.DeleteAllOf(ctx, &corev1.Node{}, client.MatchingLabels{"test": c.t.Name()}))
	})
	return names
}

// startFleet runs a thousand agents and a policy for them, and returns when all are warm.
func startFleet(t *testing.T, c *cluster, reg *registry, size, slots int) (*fleet, *v1alpha1.PrepullPolicy) {
	t.Helper()
	name := strings.ToLower(t.Name())
	names := c.fleetNodes(name, size)
	startController(t, controller.Config{Resolver: reg, Slots: slots})
	f := &fleet{t: t, meter: newMeter(t), watcher: make([]*policy.Watcher, size), heard: make([]atomic.Int64, size), started: map[string]int{}}
	f.newest.Store("")
	cfg := plane.Config()
	cfg.QPS = -1
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	for i, node := range names {
		f.run(ctx, &wg, i, node, cfg)
	}
	obj := c.policy(name, v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "app:v1"}}})
	c.eventually(name, "the whole fleet is warm", func(s v1alpha1.PrepullPolicyStatus) bool { return s.Nodes == f.all() })
	require.Equal(t, size, f.started[digestOf(image, 0)], "each node pulled once")
	require.Equal(t, int64(size), f.writes.Load(), "one write a node")
	c.labelled(readiness.PrepullLabel(name), names...)
	return f, obj
}

const image = "docker.io/library/app:v1"

// all is the count of a fleet that is done.
func (f *fleet) all() v1alpha1.NodeCounts {
	n := int32(len(f.heard))
	return v1alpha1.NodeCounts{Matched: n, Ready: n}
}

// move makes the tag name another image, and returns when the whole fleet has it, with when each node began, sorted.
func (f *fleet) move(c *cluster, reg *registry, obj *v1alpha1.PrepullPolicy) (began []time.Duration, took time.Duration) {
	f.t.Helper()
	f.mu.Lock()
	f.most = 0
	f.mu.Unlock()
	f.meter.reset()
	nodesBefore := requests(f.t, "nodes")
	f.newest.Store(digestOf(image, 1))
	reg.set(func() { reg.moved[image] = 1 })
	changed := time.Now()
	require.NoError(f.t, c.Patch(f.t.Context(), obj, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"maxNodes":5000}}`))))
	c.eventually(obj.Name, "the whole fleet has the new image", func(s v1alpha1.PrepullPolicyStatus) bool {
		return s.Nodes == f.all() && len(s.Images) == 1 && s.Images[0].Digest == digestOf(image, 1)
	})
	took = time.Since(changed)
	for i := range f.heard {
		began = append(began, time.Unix(0, f.heard[i].Load()).Sub(changed))
	}
	slices.Sort(began)
	f.t.Logf("%d nodes began to pull: the first after %v, the median %v, the last %v; all were warm and counted after %v; at most %d pulled at once",
		len(began), began[0].Round(time.Millisecond), began[len(began)/2].Round(time.Millisecond), began[len(began)-1].Round(time.Millisecond),
		took.Round(time.Millisecond), f.most)
	require.Equal(f.t, int64(2*len(began)), f.writes.Load(), "one write a node and image")
	peak, all := f.meter.peak(f.t)
	f.t.Logf("the registry was asked at most %d times in a second, %d times in all", peak, all)
	require.Equal(f.t, pullRequests*len(began), all)
	nodes := requests(f.t, "nodes")
	writes, reads := nodes["PATCH"]+nodes["PUT"]-nodesBefore["PATCH"]-nodesBefore["PUT"], nodes["GET"]+nodes["LIST"]-nodesBefore["GET"]-nodesBefore["LIST"]
	f.t.Logf("%.3f writes and %.3f reads of a Node, of agents and controller together", float64(writes)/float64(len(began)), float64(reads)/float64(len(began)))
	require.LessOrEqual(f.t, writes, 2*len(began), "at most two writes a node, the label's included")
	require.LessOrEqual(f.t, reads, len(began)/10, "nobody reads Nodes for it; polls of the test itself aside")
	return began, took
}

// TestPolicyReachesAThousandAgents has a change reach a fleet that no slot holds back.
func TestPolicyReachesAThousandAgents(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a thousand agents")
	}
	c, reg := newCluster(t), newRegistry()
	f, obj := startFleet(t, c, reg, largeFleet, largeFleet)
	before := requests(t, "prepullpolicies")
	f.move(c, reg, obj)
	after := requests(t, "prepullpolicies")
	t.Logf("%s; %d status writes; %d lists or watches of policies by all agents", memory(), after["PUT"]-before["PUT"], after["LIST"]+after["WATCH"])
	require.Equal(t, before["LIST"]+before["WATCH"], after["LIST"]+after["WATCH"], "a change costs no agent another read")
}

// TestFleetTakesTurns has the fleet pull with a tenth of it at once. What the registry is asked in a second is the measure
// of the slots: compare it with what TestPolicyReachesAThousandAgents prints.
func TestFleetTakesTurns(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a thousand agents")
	}
	c, reg := newCluster(t), newRegistry()
	f, obj := startFleet(t, c, reg, largeFleet, fleetSlots)
	f.move(c, reg, obj)
	require.LessOrEqual(t, f.most, fleetSlots, "the registry is never asked by more nodes than there are slots")
}

// requests counts the API server's requests for a resource by verb, as it counts them itself.
func requests(t *testing.T, of string) map[string]int {
	t.Helper()
	cfg := plane.Config()
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	text, err := client.CoreV1().RESTClient().Get().AbsPath("/metrics").Do(t.Context()).Raw()
	require.NoError(t, err)
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `resource="`+of+`"`) {
			continue
		}
		_, rest, _ := strings.Cut(line, `verb="`)
		verb, rest, _ := strings.Cut(rest, `"`)
		_, value, _ := strings.Cut(rest, "} ")
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		require.NoError(t, err)
		counts[verb] += int(n)
	}
	return counts
}

// memory is what this process, a thousand agents and the controller, takes at most.
func memory() string {
	runtime.GC()
	content, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if peak, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(peak)[0])
			return fmt.Sprintf("peak memory of all agents and the controller together %d MiB", kib/1024)
		}
	}
	return ""
}
