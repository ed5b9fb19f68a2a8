package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
)

func TestPullWishes(t *testing.T) {
	policy := compile(t, gateA, v1alpha1.PlacementPreferred, v1alpha1.Requirement{Images: &v1alpha1.ImagesRequirement{MinNodes: 1, Pull: true}})
	w := newWorld(t, policy, compile(t, gateB, v1alpha1.PlacementPreferred, images()))
	w.setNode(gates.ReadNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "cold", Labels: map[string]string{corev1.LabelHostname: "cold"}, Annotations: map[string]string{readiness.AnnotationImages: "{}"},
		},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourcePods: resource.MustParse("9")}},
	}))
	w.put(object("silent", "x", gateB))
	require.Empty(t, wanted(w.pullWishes(nil)), "its policy does not ask for a pull")
	w.put(object("web", "x", gateA))
	wishes := w.pullWishes(nil)
	require.Len(t, wishes, 1)
	require.Equal(t, []string{"cold"}, wishes[0].hosts)
	rendered := prepullPolicy(&wishes[0])
	require.Equal(t, []string{"cold"}, hostsOf(rendered))
	require.Equal(t, "registry.example/app:v1", rendered.Spec.Images[0].Image)
	require.False(t, rendered.Spec.Images[0].Required, "no startup taint waits for it")
	require.Equal(t, policy.UID, rendered.OwnerReferences[0].UID)
	found, err := PulledFor(object("web", "x"), []prepullv1alpha1.PrepullPolicy{*rendered})
	require.NoError(t, err)
	require.Equal(t, []string{"cold"}, found)

	w.deletePod(w.read(object("web", "x", gateA)))
	require.Empty(t, wanted(w.pullWishes(nil)), "nobody waits for it any more")
}

func TestWhatTenantsHavePulledIsBounded(t *testing.T) {
	pull := &v1alpha1.ImagesRequirement{MinNodes: 1, Pull: true}
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementPreferred, v1alpha1.Requirement{Images: pull}))
	n := coldNode("cold", "64")
	n.Status.Images = []corev1.ContainerImage{{Names: []string{"registry.example/pause:3"}}}
	w.setNode(gates.ReadNode(n))
	put := func(namespace, image string) {
		p := object(image, "x", gateA)
		p.Namespace, p.UID, p.Spec.Containers[0].Image = namespace, types.UID(namespace+image), image
		w.put(p)
	}
	for i := range 200 {
		put("loud", fmt.Sprintf("registry.example/loud:v%d", i))
	}
	put("quiet", "registry.example/quiet:v1")
	put("quiet", "elsewhere.example/quiet:v1")
	wishes := w.pullWishes(nil)
	require.Len(t, wishes, 1, "one for each GatePolicy")
	require.Len(t, wishes[0].images, pullImagesOfNamespace+1)
	require.Contains(t, wishes[0].images, "registry.example/quiet:v1")
	require.NotContains(t, wishes[0].images, "elsewhere.example/quiet:v1")
	require.Contains(t, wishes[0].refused, "elsewhere.example/quiet:v1 is not pulled ahead")

	pull.Allow = []string{"elsewhere.example/qui"}
	policy := *compile(t, gateA, v1alpha1.PlacementPreferred, v1alpha1.Requirement{Images: pull})
	policy.Generation = 2
	w.enforce(&policy)
	require.Empty(t, wanted(w.pullWishes(nil)), "allow takes the place of what the cluster uses, and is a prefix of whole names")
	pull.Allow = []string{"elsewhere.example"}
	policy = *compile(t, gateA, v1alpha1.PlacementPreferred, v1alpha1.Requirement{Images: pull})
	policy.Generation = 3
	w.enforce(&policy)
	require.Equal(t, []string{"elsewhere.example/quiet:v1"}, w.pullWishes(nil)[0].images)
}

func TestPullNamesAreNames(t *testing.T) {
	policy := *compile(t, gateA, v1alpha1.PlacementNone, references())
	policy.Name = strings.Repeat("a.", 126) + "a"
	name := pullName(&policy)
	require.Empty(t, validation.IsDNS1123Subdomain(name), name)
	require.LessOrEqual(t, len(name), 200, "the most that a PrepullPolicy may have")
}

func TestLabelsComeAtOnceAndGoLate(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementRequired, images()))
	pod := object("web", "x", gateA)
	label := w.read(pod).WarmLabel()
	scheme := metadatafake.NewTestScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	client := metadatafake.NewSimpleMetadataClient(scheme)
	var mu sync.Mutex
	var written []any
	client.PrependReactor("patch", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		var patch struct {
			Metadata struct {
				UID    types.UID
				Labels map[string]any
			}
		}
		mu.Lock()
		defer mu.Unlock()
		sent, ok := action.(clienttesting.PatchAction)
		if !ok {
			return false, nil, nil
		}
		if err := json.Unmarshal(sent.GetPatch(), &patch); err != nil {
			return true, nil, err
		}
		written = append(written, string(patch.Metadata.UID), patch.Metadata.Labels[label])
		return true, &metav1.PartialObjectMetadata{}, nil
	})
	l := newLabeller(client.Resource(corev1.SchemeGroupVersion.WithResource("nodes")), w.waitlist, logr.Discard(), nil)
	after := func(d time.Duration) []any {
		written = nil
		l.reconcile(t.Context(), begin().Add(d))
		return written
	}
	w.warmNode("n1", "4")
	require.Empty(t, after(0), "nobody asks for it")
	w.put(pod)
	require.Equal(t, []any{"uid-n1", "true"}, after(0))
	require.Empty(t, after(time.Second), "the watch has not shown it yet")
	w.warmNode("n1", "4", label)
	require.Empty(t, after(2*time.Second))

	// The pod is lifted, and looks for a node: the label stays. Once it is bound nobody asks any more.
	steered := object("web", "x")
	steered.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: gates.RequireLabel(nil, label),
	}}}
	w.put(steered)
	require.Empty(t, after(time.Hour))
	w.deletePod(w.read(steered))
	require.Empty(t, after(time.Hour+time.Second))
	require.Empty(t, after(time.Hour+labelLinger), "the next pod of the workload may be about to come")
	require.Equal(t, []any{"uid-n1", nil}, after(time.Hour+time.Second+labelLinger))
}

func TestASteeredPodThatLostItsNodeGetsAnother(t *testing.T) {
	w := newWorld(t, compile(t, gateA, v1alpha1.PlacementRequired, images()))
	steered := object("web", "x")
	label := w.read(steered).WarmLabel()
	steered.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: gates.RequireLabel(nil, label),
	}}}
	w.warmNode("n1", "1", label)
	w.warmNode("n2", "1")
	w.put(steered)
	never := func(string, bool) bool { return false }
	all := []labelChange{{"n2", "uid-n2", label, true}}
	require.Equal(t, all, w.labels(never), "every warm node has it")
	w.deleteNode("n1")
	require.Equal(t, all, w.labels(never))
}

func TestBellFoldsRings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b, looks := newBell(), 0
		go b.each(ctx, time.Second, func() time.Time { looks++; return time.Time{} })
		synctest.Wait()
		require.Equal(t, 1, looks, "once at the start")
		for range 100 {
			b.ring()
		}
		<-time.After(5 * time.Second)
		require.Equal(t, 2, looks)
		cancel()
		synctest.Wait()
	})
}

func TestJudge(t *testing.T) {
	policy := func(name, gate string, age time.Duration, expression string) *v1alpha1.GatePolicy {
		return &v1alpha1.GatePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(begin().Add(-age))},
			Spec: v1alpha1.GatePolicySpec{GateName: gate, Requires: []v1alpha1.Requirement{
				{Object: &v1alpha1.ObjectRequirement{APIVersion: "v1", Kind: "ConfigMap", Name: "x", Expression: expression}},
			}},
		}
	}
	got := gates.Judge([]*v1alpha1.GatePolicy{
		policy("old", gateA, time.Hour, ""), policy("new", gateA, time.Minute, ""), policy("alike", gateA, time.Hour, ""),
		policy("broken", gateB, time.Hour, "object.data +"),
	}, nil)
	reasons := map[types.UID]string{}
	for uid, j := range got {
		reasons[uid] = j.Reason
		require.Equal(t, j.Reason == gates.ReasonAccepted, j.InForce != nil && !j.InForce.Broken())
	}
	require.Equal(t, map[types.UID]string{
		"alike": gates.ReasonAccepted, "old": gates.ReasonConflict, "new": gates.ReasonConflict, "broken": gates.ReasonInvalid,
	}, reasons)
}

func TestEndpointsCountOnce(t *testing.T) {
	yes, no := true, false
	slice := func(family discoveryv1.AddressType, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{AddressType: family, Endpoints: endpoints}
	}
	endpoint := func(address string, ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	require.Equal(t, 2, countReady([]*discoveryv1.EndpointSlice{
		slice(discoveryv1.AddressTypeIPv4, endpoint("10.0.0.1", &yes), endpoint("10.0.0.2", nil), endpoint("10.0.0.3", &no)),
		slice(discoveryv1.AddressTypeIPv4, endpoint("10.0.0.1", &yes)),
		slice(discoveryv1.AddressTypeIPv6, endpoint("fd00::1", &yes)),
	}))
}
