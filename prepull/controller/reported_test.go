package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func reporting(name string, images ...corev1.ContainerImage) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Images: images}}
}

func TestReportedByTheKubelet(t *testing.T) {
	const image = "registry.example:5000/team/app:v1"
	named := func(size int64, names ...string) corev1.ContainerImage {
		return corev1.ContainerImage{Names: names, SizeBytes: size}
	}
	cases := map[string]struct {
		image  corev1.ContainerImage
		digest string
		bytes  int64
	}{
		"tag and digest":          {named(7, image, "registry.example:5000/team/app@sha256:aa"), "sha256:aa", 7},
		"another repository too":  {named(7, image, "registry.example:5000/team/app@sha256:aa", "mirror.example/app@sha256:bb"), "sha256:aa", 7},
		"two digests, one image":  {named(7, image, "registry.example:5000/team/app@sha256:aa", "registry.example:5000/team/app@sha256:bb"), "", 7},
		"tag alone":               {named(7, image), "", 7},
		"another tag":             {named(7, "registry.example:5000/team/app:v2"), "", 0},
		"no size":                 {named(0, image), "", 0},
		"more than any disk has":  {named(1<<62, image), "", mostBytes},
		"what cannot be an image": {named(7, "NO IMAGE", "@@@"), "", 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := reportedBy(reporting("n", tc.image), image)
			require.Equal(t, tc.bytes > 0, ok)
			require.Equal(t, tc.digest, got.Digest)
			require.Equal(t, tc.bytes, got.Bytes())
		})
	}
	got, ok := reportedBy(reporting("n", named(7, "docker.io/library/nginx:1.29", "nginx@sha256:cc")), "docker.io/library/nginx:1.29")
	require.True(t, ok)
	require.Equal(t, "sha256:cc", got.Digest, "short names are what they stand for")
}

func TestOneNodeThatLiesIsOutvoted(t *testing.T) {
	const image = "registry.example/app:v1"
	entry := func(size int64, dgst string) corev1.ContainerImage {
		return corev1.ContainerImage{Names: []string{image, "registry.example/app@" + dgst}, SizeBytes: size}
	}
	r := &reports{
		client: fake.NewClientset(reporting("a", entry(1<<39, "sha256:evil")), reporting("b", entry(100, "sha256:good")), reporting("c", entry(100, "sha256:good"))),
		having: func(string) []string { return []string{"c", "gone", "b", "a"} },
	}
	got := r.look(t.Context(), image)
	require.EqualValues(t, 100, got.Bytes())
	require.Empty(t, got.Digest, "they do not agree")
	r.having = func(string) []string { return []string{"c", "b"} }
	require.Equal(t, "sha256:good", r.look(t.Context(), image).Digest)
	r.having = func(string) []string { return nil }
	require.Zero(t, r.look(t.Context(), image).Bytes())
}
