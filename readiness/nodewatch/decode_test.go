package nodewatch

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"headstart.dev/readiness"
)

// fullNode has something in every field that is taken out, and beside each.
func fullNode() *corev1.Node {
	at := metav1.NewTime(time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local))
	quantities := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi")}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "n", UID: "u", ResourceVersion: "7", CreationTimestamp: at, Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "NodeClaim", Name: "o"}}, Finalizers: []string{"f"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
	}}
	n.Spec = corev1.NodeSpec{ProviderID: "p", Unschedulable: true, Taints: []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule, TimeAdded: &at}}}
	n.Status = corev1.NodeStatus{
		Capacity: quantities, Allocatable: quantities, Phase: corev1.NodeRunning,
		Conditions: []corev1.NodeCondition{
			{Type: "A", Status: corev1.ConditionTrue, LastHeartbeatTime: at, LastTransitionTime: at, Reason: "R", Message: string(make([]byte, 300))},
			{Type: "B", Status: corev1.ConditionFalse, Reason: readiness.ReasonExecNotAllowed, Message: "m"},
		},
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250}},
		NodeInfo:        corev1.NodeSystemInfo{BootID: "boot", KernelVersion: "6"},
		Images: []corev1.ContainerImage{
			{Names: []string{"registry.example/app:1"}, SizeBytes: 1 << 30}, {Names: []string{"registry.example/pause:3"}, SizeBytes: 700_000}, {Names: []string{"unsized"}},
		},
		VolumesInUse: []corev1.UniqueVolumeName{"v"}, VolumesAttached: []corev1.AttachedVolume{{Name: "v"}},
		RuntimeHandlers: []corev1.NodeRuntimeHandler{{Name: "h"}}, DeclaredFeatures: []string{"x"},
	}
	return n
}

// read is what followers are told of a Node.
func read(n *corev1.Node) *corev1.Node {
	out := n.DeepCopy()
	out.ManagedFields = nil
	s := &out.Status
	s.Capacity, s.Addresses, s.VolumesInUse, s.VolumesAttached, s.RuntimeHandlers = nil, nil, nil, nil, nil
	var images []corev1.ContainerImage
	for _, image := range s.Images {
		if image.SizeBytes <= MaxImageBytes {
			images = append(images, image)
		}
	}
	s.Images = images
	for i := range s.Conditions {
		s.Conditions[i].Message = ""
		if s.Conditions[i].Reason != readiness.ReasonExecNotAllowed {
			s.Conditions[i].Reason = ""
		}
	}
	return out
}

func TestANodeIsDecodedWithoutWhatNobodyReads(t *testing.T) {
	data, err := fullNode().Marshal()
	require.NoError(t, err)
	var whole corev1.Node
	require.NoError(t, whole.Unmarshal(data))
	var part partialNode
	require.NoError(t, part.Unmarshal(data))
	require.Equal(t, read(&whole), &part.Node)
	require.NotEqual(t, &whole, &part.Node)

	list := corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "9"}, Items: []corev1.Node{*fullNode(), *fullNode()}}
	data, err = list.Marshal()
	require.NoError(t, err)
	var parts partialList
	require.NoError(t, parts.Unmarshal(data))
	require.Equal(t, "9", parts.ResourceVersion)
	require.Equal(t, []corev1.Node{part.Node, part.Node}, parts.Items)
}

func FuzzANodeIsDecodedAsTheWholeOneIs(f *testing.F) {
	data, err := fullNode().Marshal()
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x1a, 0x02, 0x42, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		var part partialNode
		if part.Unmarshal(data) != nil {
			return
		}
		var whole corev1.Node
		if whole.Unmarshal(data) == nil {
			require.Equal(t, read(&whole), read(&part.Node))
		}
	})
}

// TestAListIsDecodedInEitherEncoding is of an API server that answers as it likes.
func TestAListIsDecodedInEitherEncoding(t *testing.T) {
	for name, contentType := range map[string]string{"protobuf": "application/vnd.kubernetes.protobuf", "json": "application/json"} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", contentType)
				list := &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: []corev1.Node{*fullNode()}}
				encoder := clientgoscheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion)
				if name == "protobuf" {
					encoder = clientgoscheme.Codecs.CodecForVersions(protobuf.NewSerializer(clientgoscheme.Scheme, clientgoscheme.Scheme), nil, corev1.SchemeGroupVersion, nil)
				}
				if err := encoder.Encode(list, w); err != nil {
					t.Error(err)
				}
			}))
			defer server.Close()
			c, err := newClient(&rest.Config{Host: server.URL})
			require.NoError(t, err)
			obj, err := c.Get().Resource("nodes").Do(t.Context()).Get()
			require.NoError(t, err)
			list, ok := obj.(*partialList)
			require.True(t, ok, "%T", obj)
			require.Equal(t, "n", list.Items[0].Name)
			require.Equal(t, "boot", list.Items[0].Status.NodeInfo.BootID)
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	data, err := fullNode().Marshal()
	require.NoError(b, err)
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var n corev1.Node
			require.NoError(b, n.Unmarshal(data))
		}
	})
	b.Run("part", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var n partialNode
			require.NoError(b, n.Unmarshal(data))
		}
	})
}
