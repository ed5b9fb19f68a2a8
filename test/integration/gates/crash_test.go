package gates_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

// dyingConfig works for a number of pod patches. The last of them reaches the API server, but its answer is lost, and
// so is everything after it: what a process that is killed there leaves behind.
func dyingConfig(patches int64) (cfg *rest.Config, dead <-chan struct{}) {
	cfg = fastConfig()
	var count atomic.Int64
	died := make(chan struct{})
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.Method != http.MethodPatch || !strings.Contains(request.URL.Path, "/pods/") {
				return next.RoundTrip(request)
			}
			switch n := count.Add(1); {
			case n < patches:
				return next.RoundTrip(request)
			case n == patches:
				response, err := next.RoundTrip(request)
				if err == nil {
					err = response.Body.Close()
				}
				close(died)
				return nil, errors.Join(errors.New("killed"), err)
			default:
				return nil, errors.New("killed")
			}
		})
	})
	return cfg, died
}

func TestKilledAtRandomPointsNothingIsLostOrLiftedEarly(t *testing.T) {
	const points, gangs, size = 20, 4, 6
	c := newClient(t)
	gate := "example.com/killed"
	policy(t, c, "killed", v1alpha1.GatePolicySpec{GateName: gate, Requires: gang(size), Placement: v1alpha1.PlacementNone})
	// Room for every gang at once; the scheduler binds nothing because each pod has a second gate.
	node(t, c, "killed-node", capacity("1000"))
	for point := range points {
		t.Run(fmt.Sprintf("point %d", point), func(t *testing.T) {
			ns := namespace(t, c)
			configMap(t, c, ns, "there")
			var ready, early []*corev1.Pod
			for g := range gangs {
				for m := range size {
					pod := makePod(ns, fmt.Sprintf("g%d-%d", g, m), gate, "other.example/hold").label("job-name", fmt.Sprintf("g%d", g)).envFrom("there")
					if g == gangs-1 && m == size-1 {
						pod.envFrom("missing") // the last gang must not move: one of its members lacks something
					}
					if pod.create(t, c); g == gangs-1 {
						early = append(early, pod.pod)
					} else {
						ready = append(ready, pod.pod)
					}
				}
			}
			patches := 1 + rand.Int64N((gangs-1)*size)
			cfg, dead := dyingConfig(patches)
			stop := startController(t, cfg)
			<-dead
			stop()
			startController(t, fastConfig())
			for _, pod := range ready {
				awaitGates(t, c, pod, "other.example/hold")
			}
			for _, pod := range early {
				require.Equal(t, []string{gate, "other.example/hold"}, gatesOf(read(t, c, pod)), "killed after %d patches", patches)
			}
		})
	}
}

func TestEightWritersOnTheSamePods(t *testing.T) {
	const pods, writers = 200, 8
	c := newClient(t)
	ns := namespace(t, c)
	ours := "example.com/writers"
	policy(t, c, "writers", v1alpha1.GatePolicySpec{GateName: ours, Requires: references()})
	names := []string{ours}
	for i := range writers - 1 {
		names = append(names, fmt.Sprintf("other.example/gate-%d", i))
	}
	var created []*corev1.Pod
	for i := range pods {
		created = append(created, makePod(ns, fmt.Sprintf("web-%d", i), append(names, "other.example/hold")...).envFrom("flags").create(t, c))
	}
	counted := countWrites(t)
	startController(t, counted.config)
	stayGated(t, c, created[0], append(names, "other.example/hold")...)

	var wg sync.WaitGroup
	for _, gate := range names[1:] {
		wg.Go(func() {
			for _, i := range rand.Perm(pods) {
				patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"schedulingGates":[{"$patch":"delete","name":%q}]}}`, created[i].UID, gate)
				if err := c.Patch(t.Context(), created[i].DeepCopy(), client.RawPatch(types.StrategicMergePatchType, []byte(patch))); err != nil {
					t.Errorf("lift %s: %v", gate, err)
				}
			}
		})
	}
	configMap(t, c, ns, "flags")
	wg.Wait()
	for _, pod := range created {
		now := awaitGates(t, c, pod, "other.example/hold")
		want := pod.DeepCopy()
		want.Spec.SchedulingGates = now.Spec.SchedulingGates
		require.Equal(t, want.Spec, now.Spec)
		require.Equal(t, want.Labels, now.Labels)
		require.Equal(t, want.Annotations, now.Annotations)
	}
	require.Equal(t, pods, counted.podPatches(), "each of our gates is removed once: %s", counted)
}
