package gates

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"headstart.dev/prepull"
)

const someDigest = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1"

func TestImageKey(t *testing.T) {
	cases := map[string]struct{ image, want string }{
		"a bare name gets registry and tag":    {"nginx", "docker.io/library/nginx:latest"},
		"a name with a tag":                    {"team/app:v1", "docker.io/team/app:v1"},
		"a registry with a port":               {"registry:5000/app:v1", "registry:5000/app:v1"},
		"a digest is shortened":                {"nginx@" + someDigest, "docker.io/library/nginx@4bcff63911fcb444"},
		"a tag beside a digest says nothing":   {"nginx:1.29@" + someDigest, "docker.io/library/nginx@4bcff63911fcb444"},
		"what is no reference is its own key":  {"Not An Image", "Not An Image"},
		"a digest of the wrong form is no key": {"nginx@sha256:zz", "nginx@sha256:zz"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, imageKey(tc.image)) })
	}
}

func TestWarmKeys(t *testing.T) {
	inv := prepull.Inventory{
		Warm: []prepull.InventoryImage{
			{Digest: "4bcff63911fcb444", Name: "docker.io/library/nginx:1.29"},
			{Digest: "aaaaaaaaaaaaaaaa", Name: "registry.example/app@" + someDigest},
			{Digest: "bbbbbbbbbbbbbbbb", Name: "NO REFERENCE"},
		},
		Lazy: []prepull.InventoryImage{{Digest: "cccccccccccccccc", Name: "docker.io/library/lazy:1"}},
	}
	require.Equal(t, []string{
		"docker.io/library/nginx:1.29", "docker.io/library/nginx@4bcff63911fcb444", "registry.example/app@aaaaaaaaaaaaaaaa",
	}, warmKeys(inv))
}

func TestImagesOfAPodAreAllThatItStartsWith(t *testing.T) {
	spec := corev1.PodSpec{
		InitContainers: []corev1.Container{{Image: "init:1"}},
		Containers:     []corev1.Container{{Image: "app:1"}, {Image: "app:1"}, {}},
		Volumes:        []corev1.Volume{{VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "model:1"}}}},
	}
	require.Equal(t, []string{"docker.io/library/app:1", "docker.io/library/init:1", "docker.io/library/model:1"}, imagesOf(&spec))
}
