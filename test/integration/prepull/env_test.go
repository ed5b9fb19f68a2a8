package prepull_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/prepull"
	"headstart.dev/prepull/budget"
	"headstart.dev/prepull/controller"
	"headstart.dev/prepull/controller/resolve"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
)

const mib = 1 << 20

// registry stands for all registries: what it was not told to fail has a digest derived from name and version.
type registry struct {
	mu      sync.Mutex
	moved   map[string]int
	broken  map[string]bool
	sizes   map[string]int64
	lookups map[string]int
}

var _ controller.Resolver = (*registry)(nil)

func newRegistry() *registry {
	return &registry{moved: map[string]int{}, broken: map[string]bool{}, sizes: map[string]int64{}, lookups: map[string]int{}}
}

func (r *registry) Resolve(_ context.Context, name, _ string, logins ...authn.Authenticator) (resolve.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookups[name]++
	if r.broken[name] && len(logins) == 0 {
		return resolve.Image{}, fmt.Errorf("look up image %q: unauthorized", name)
	}
	dgst := digestOf(name, r.moved[name])
	size := r.sizes[name]
	if size == 0 {
		size = 100 * mib
	}
	return resolve.Image{Digest: dgst, Layers: []budget.Layer{{Digest: dgst, Bytes: size}}}, nil
}

func (r *registry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func digestOf(name string, version int) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", name, version)
	return fmt.Sprintf("sha256:%016x%048x", h.Sum64(), version)
}

// cluster is a client with all rights, and the names that the test made.
type cluster struct {
	client.Client
	t *testing.T
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	cfg := plane.Config()
	cfg.QPS = -1
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	require.NoError(t, err)
	return &cluster{Client: c, t: t}
}

func (c *cluster) create(obj client.Object) {
	c.t.Helper()
	require.NoError(c.t, c.Create(c.t.Context(), obj))
	c.t.Cleanup(func() {
		err := c.Delete(context.WithoutCancel(c.t.Context()), obj, client.GracePeriodSeconds(0))
		require.NoError(c.t, client.IgnoreNotFound(err))
	})
}

func (c *cluster) policy(name string, spec v1alpha1.PrepullPolicySpec) *v1alpha1.PrepullPolicy {
	c.t.Helper()
	policy := &v1alpha1.PrepullPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	c.create(policy)
	return policy
}

func (c *cluster) node(name string, labels map[string]string) {
	c.t.Helper()
	c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// publish does what an agent does: a patch of the node's own status.
func (c *cluster) publish(node string, inv prepull.Inventory) {
	c.t.Helper()
	text, err := inv.Encode()
	require.NoError(c.t, err)
	obj := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, readiness.AnnotationImages, text)
	require.NoError(c.t, c.Status().Patch(c.t.Context(), obj, client.RawPatch("application/strategic-merge-patch+json", []byte(patch))))
}

func having(images ...v1alpha1.ImageStatus) prepull.Inventory {
	var inv prepull.Inventory
	for _, img := range images {
		inv.Warm = append(inv.Warm, prepull.InventoryImage{Name: img.Image, Digest: prepull.DigestPrefix(img.Digest)})
	}
	return inv
}

// eventually waits until the policy's status satisfies check, and returns it.
func (c *cluster) eventually(name, what string, check func(v1alpha1.PrepullPolicyStatus) bool) v1alpha1.PrepullPolicyStatus {
	c.t.Helper()
	var last v1alpha1.PrepullPolicy
	ok := poll(c.t, func() bool {
		return c.Get(c.t.Context(), client.ObjectKey{Name: name}, &last) == nil && check(last.Status)
	})
	require.True(c.t, ok, "%s; the status is %+v", what, last.Status)
	return last.Status
}

func poll(t *testing.T, check func() bool) bool {
	t.Helper()
	deadline := time.NewTimer(settleTime)
	defer deadline.Stop()
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		if check() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
}

// asController is the identity that the controller is deployed with.
func asController() *rest.Config {
	cfg := plane.ConfigFor("system:serviceaccount:"+namespace+":headstart-controller", "system:serviceaccounts", "system:authenticated")
	cfg.QPS = -1
	return cfg
}

// run starts a controller, and returns what stops it.
func startController(t *testing.T, cfg controller.Config) (stop func()) {
	t.Helper()
	cfg.REST, cfg.Namespace = asController(), namespace
	cfg.Log = logr.Discard()
	if testing.Verbose() {
		cfg.Log = logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := controller.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Start(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	return stop
}
