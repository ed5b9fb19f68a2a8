package resolve_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/controller/resolve"
)

func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestResolve(t *testing.T) {
	host := serve(t, registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	single, err := random.Image(1000, 3)
	require.NoError(t, err)
	push(t, host+"/single:v1", func(ref name.Reference) error { return remote.Write(ref, single) })
	amd, err := random.Image(500, 2)
	require.NoError(t, err)
	arm, err := random.Image(700, 4)
	require.NoError(t, err)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	push(t, host+"/multi:v1", func(ref name.Reference) error { return remote.WriteIndex(ref, index) })

	cases := map[string]struct {
		ref, arch  string
		want       interface{ Digest() (v1.Hash, error) }
		wantLayers int
		wantErr    string
	}{
		"an image":                           {ref: "/single:v1", arch: "amd64", want: single, wantLayers: 3},
		"an index: its digest, amd64 layers": {ref: "/multi:v1", arch: "amd64", want: index, wantLayers: 2},
		"an index: its digest, arm64 layers": {ref: "/multi:v1", arch: "arm64", want: index, wantLayers: 4},
		"no image for the architecture":      {ref: "/multi:v1", arch: "s390x", wantErr: "linux/s390x"},
		"no such tag":                        {ref: "/single:v2", arch: "amd64", wantErr: "MANIFEST_UNKNOWN"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := resolve.New(resolve.Config{}).Resolve(t.Context(), host+tc.ref, tc.arch)
			if tc.wantErr != "" {
				require.ErrorContains(t, err, tc.wantErr)
				require.ErrorContains(t, err, host+tc.ref, "the error names the image")
				return
			}
			require.NoError(t, err)
			want, err := tc.want.Digest()
			require.NoError(t, err)
			require.Equal(t, want.String(), got.Digest)
			require.Len(t, got.Layers, tc.wantLayers)
			for _, layer := range got.Layers {
				require.Positive(t, layer.Bytes)
			}
		})
	}
}

func push(t *testing.T, ref string, write func(name.Reference) error) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	require.NoError(t, err)
	require.NoError(t, write(parsed))
}

func TestResolveHasADeadline(t *testing.T) {
	release := make(chan struct{})
	host := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	_, err := resolve.New(resolve.Config{Timeout: 50 * time.Millisecond}).Resolve(t.Context(), host+"/hangs:v1", "amd64")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestResolveReadsNoEndlessAnswer(t *testing.T) {
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		chunk := []byte(strings.Repeat(" ", 1<<20))
		for range 64 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	_, err := resolve.New(resolve.Config{}).Resolve(t.Context(), host+"/endless:v1", "amd64")
	require.ErrorContains(t, err, "too large")
}

func TestResolveNeverAsksTheInstanceMetadataService(t *testing.T) {
	for _, ref := range []string{"169.254.169.254/latest/meta-data:v1", "[fe80::1]:5000/app:v1", "0.0.0.0:80/app:v1"} {
		_, err := resolve.New(resolve.Config{}).Resolve(t.Context(), ref, "amd64")
		require.ErrorContains(t, err, "no registry is looked for at", ref)
	}
}
