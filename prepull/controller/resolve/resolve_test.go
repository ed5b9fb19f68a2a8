package resolve_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
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

func serve(t testing.TB, handler http.Handler) string {
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
			got, err := resolve.New(resolve.Config{Loopback: true}).Resolve(t.Context(), host+tc.ref, tc.arch)
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
	_, err := resolve.New(resolve.Config{Timeout: 50 * time.Millisecond, Loopback: true}).Resolve(t.Context(), host+"/hangs:v1", "amd64")
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
	_, err := resolve.New(resolve.Config{Loopback: true}).Resolve(t.Context(), host+"/endless:v1", "amd64")
	require.ErrorContains(t, err, "too large")
}

func TestResolveNeverAsksTheInstanceMetadataService(t *testing.T) {
	for _, ref := range []string{
		"169.254.169.254/latest/meta-data:v1", "[fe80::1]:5000/app:v1", "0.0.0.0:80/app:v1", "[fd00:ec2::254]:80/app:v1", "[fd20:ce::254]:80/app:v1",
		"[::ffff:169.254.169.254]:80/app:v1", "[64:ff9b::a9fe:a9fe]:80/app:v1", "100.100.100.200/app:v1", "168.63.129.16/app:v1", "[::]:80/app:v1",
		"127.0.0.1:8080/app:v1", "localhost:8080/app:v1", "[::1]:8080/app:v1", "[::ffff:127.0.0.1]:8080/app:v1",
	} {
		_, err := resolve.New(resolve.Config{}).Resolve(t.Context(), ref, "amd64")
		require.ErrorContains(t, err, "no registry is looked for at", ref)
	}
}

// TestNothingOfAnAnswerIsPassedOn is of a name that leads to a server of the cluster's own.
func TestNothingOfAnAnswerIsPassedOn(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hunter2", http.StatusInternalServerError) },
		"a code": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"errors":[{"code":"hunter2","message":"hunter2"}]}`, http.StatusNotFound)
		},
		"no manifest": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hunter2")) },
		"a type of no use": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "hunter2")
			_, _ = w.Write([]byte("{}"))
		},
		"a challenge": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="hunter2"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"a redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://169.254.169.254/hunter2")
			w.WriteHeader(http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, answer)
			_, err := resolve.New(resolve.Config{Loopback: true}).Resolve(t.Context(), host+"/app:v1", "amd64")
			require.ErrorContains(t, err, host+"/app:v1")
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// keyless is a process without an identity in the registry's cloud.
type keyless struct{}

func (keyless) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }
func (keyless) Trouble(registry string) error {
	return fmt.Errorf("no credentials for %s", registry)
}

func TestLoginsAreTriedInTurn(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		// Each account sees its own repository.
		if team := strings.TrimPrefix(r.URL.Path, "/v2/"); team != "" && !strings.HasPrefix(team, user+"/") || user == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	image, err := random.Image(100, 1)
	require.NoError(t, err)
	login := func(user string) authn.Authenticator { return &authn.Basic{Username: user, Password: "p4ss"} }
	push(t, host+"/b/app:v1", func(ref name.Reference) error { return remote.Write(ref, image, remote.WithAuth(login("b"))) })
	r := resolve.New(resolve.Config{Keychain: keyless{}, Loopback: true})
	got, err := r.Resolve(t.Context(), host+"/b/app:v1", "amd64", login("a"), login("b"))
	require.NoError(t, err)
	require.NotEmpty(t, got.Digest)
	_, err = r.Resolve(t.Context(), host+"/b/app:v1", "amd64", login("a"))
	require.ErrorContains(t, err, "no credentials for "+host)
	require.NotContains(t, err.Error(), "p4ss")
}
