package registry_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/registry"
)

// challenging makes a fake ask for a token of a token server that answers what tell says, and then a token.
func challenging(t *testing.T, f *fake, tell func(w http.ResponseWriter, r *http.Request, nth int64) bool) *atomic.Int64 {
	t.Helper()
	var asked atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !tell(w, r, asked.Add(1)) {
			_, _ = io.WriteString(w, `{"token":"good"}`)
		}
	}))
	t.Cleanup(tokens.Close)
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s"`, tokens.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	return &asked
}

// tagged gives a fake an image under the tag v1.
func tagged(t *testing.T, f *fake) {
	t.Helper()
	manifest, _ := image(t, f, f.blob(noise(t, 100)))
	f.manifest(t, "v1", ocispec.MediaTypeImageManifest, manifest)
}

// What a token server answers counts for the request that asked, and for no other.
func TestAnswersOfATokenServerAreNotKept(t *testing.T) {
	for name, code := range map[string]int{"busy": http.StatusServiceUnavailable, "too many": http.StatusTooManyRequests} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			tagged(t, f)
			asked := challenging(t, f, func(w http.ResponseWriter, _ *http.Request, nth int64) bool {
				if nth <= 2 {
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(code)
				}
				return nth <= 2
			})
			began := time.Now()
			_, err := client(t, nil).Resolve(t.Context(), f.host()+"/app:v1", platforms.Default())
			require.NoError(t, err)
			require.EqualValues(t, 3, asked.Load())
			require.GreaterOrEqual(t, time.Since(began), 2*time.Second, "it has said when to come back")
		})
	}
}

// A pull that ends while its token comes takes nothing with it.
func TestACancelledRequestPoisonsNoOther(t *testing.T) {
	f := newFake(t)
	tagged(t, f)
	reached, goOn := make(chan struct{}), make(chan struct{})
	challenging(t, f, func(_ http.ResponseWriter, _ *http.Request, nth int64) bool {
		if nth == 1 {
			close(reached)
			<-goOn
		}
		return false
	})
	c := client(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Resolve(ctx, f.host()+"/app:v1", platforms.Default())
		ended <- err
	}()
	<-reached
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	close(goOn)
	_, err := c.Resolve(t.Context(), f.host()+"/app:v1", platforms.Default())
	require.NoError(t, err)
}

// Credentials that cannot be looked up now are no refusal for good.
func TestARefusalWithoutCredentialsMayHeal(t *testing.T) {
	f := newFake(t)
	tagged(t, f)
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if _, secret, _ := r.BasicAuth(); secret == "late" {
			return false
		}
		w.Header().Set("Www-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	booting := true
	c := client(t, func(cfg *registry.Config) {
		cfg.Credentials = func(context.Context, string, string, int) (string, string, error) {
			if booting {
				return "", "", errors.New("no metadata yet")
			}
			return "user", "late", nil
		}
	})
	_, err := c.Resolve(t.Context(), f.host()+"/app:v1", platforms.Default())
	require.ErrorContains(t, err, "no metadata yet")
	require.ErrorContains(t, err, "401")
	require.False(t, registry.Terminal(err))
	require.ErrorIs(t, err, registry.ErrFetch)
	booting = false
	_, err = c.Resolve(t.Context(), f.host()+"/app:v1", platforms.Default())
	require.NoError(t, err)
}

// A range that is refused, or that comes as something else, is no reason to be without the blob.
func TestReaderDoesWithoutRanges(t *testing.T) {
	data := bytes.Repeat([]byte("compressible "), 20_000)
	encode := func(name string) []byte {
		var out bytes.Buffer
		var w io.WriteCloser
		switch name {
		case "gzip":
			w = gzip.NewWriter(&out)
		case "deflate":
			w, _ = flate.NewWriter(&out, 6) // the level is valid
		case "zstd":
			w, _ = zstd.NewWriter(&out) // without options it cannot fail
		}
		_, err := w.Write(data)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.Bytes()
	}
	refuse := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") == "" || !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	encoded := func(name string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Encoding", name)
			_, _ = w.Write(encode(name))
			return true
		}
	}
	for name, meddle := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"400": refuse(400), "405": refuse(405), "416": refuse(416), "501": refuse(501),
		"gzip": encoded("gzip"), "deflate": encoded("deflate"), "zstd": encoded("zstd"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			desc := f.blob(data)
			f.meddle = meddle
			got, err := read(t, client(t, nil), f.host()+"/app", desc, registry.ReadOptions{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
		})
	}
}

func TestDocumentsAreDecoded(t *testing.T) {
	f := newFake(t)
	tagged(t, f)
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		parts := strings.Split(r.URL.Path, "/")
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		_, _ = zip.Write(f.objects[strings.Join(parts[len(parts)-2:], "/")])
		_ = zip.Close()
		return true
	}
	_, err := client(t, nil).Resolve(t.Context(), f.host()+"/app:v1", platforms.Default())
	require.NoError(t, err)
}

// A blob may lie in another registry, which asks for a token of its own. It gets its own credentials and no others'.
func TestARedirectMayAskForItsOwnToken(t *testing.T) {
	f, second := newFake(t), newFake(t)
	data := noise(t, 3*chunk)
	desc := f.blob(data)
	second.blob(data)
	var leaked atomic.Bool
	userOf := func(host string) string { return "of " + strings.ReplaceAll(host, ":", "_") }
	second.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		user, _, _ := r.BasicAuth()
		leaked.CompareAndSwap(false, user != "" && user != userOf(second.host()))
		if user == userOf(second.host()) {
			return false
		}
		w.Header().Set("Www-Authenticate", `Basic realm="second"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, second.server.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	c := client(t, func(cfg *registry.Config) {
		cfg.Credentials = func(_ context.Context, _, host string, _ int) (string, string, error) {
			return userOf(host), "secret", nil
		}
	})
	got, err := read(t, c, f.host()+"/app", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.False(t, leaked.Load())
}

// A mirror that is slow to begin is waited for where the origin has nothing for us.
func TestASlowMirrorIsAskedAgainWhereTheOriginRefuses(t *testing.T) {
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			origin, mirror := newFake(t), newFake(t)
			tagged(t, mirror)
			mirror.meddle = func(_ http.ResponseWriter, r *http.Request) bool {
				timer := time.NewTimer(1600 * time.Millisecond)
				defer timer.Stop()
				select {
				case <-timer.C:
				case <-r.Context().Done():
				}
				return false
			}
			origin.meddle = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
			dir := hostsTOML(t, origin.host(), fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", origin.server.URL, mirror.server.URL))
			_, err := client(t, func(cfg *registry.Config) { cfg.HostDirs = []string{dir} }).Resolve(t.Context(), origin.host()+"/app:v1", platforms.Default())
			require.NoError(t, err)
		})
	}
}

// A hosts.toml that cannot be read is told of beside whatever comes of it, and a mended one counts at once.
func TestABrokenHostsFileIsNamed(t *testing.T) {
	f := newFake(t)
	tagged(t, f)
	dir := hostsTOML(t, "registry.invalid", "server = \"http://"+f.host()+"\n")
	c := client(t, func(cfg *registry.Config) { cfg.HostDirs = []string{dir} })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := c.Resolve(ctx, "registry.invalid/app:v1", platforms.Default())
	require.ErrorContains(t, err, "hosts.toml:1:")
	again := hostsTOML(t, "registry.invalid", fmt.Sprintf("server = %q\n", f.server.URL))
	_, err = client(t, func(cfg *registry.Config) { cfg.HostDirs = []string{again} }).Resolve(t.Context(), "registry.invalid/app:v1", platforms.Default())
	require.NoError(t, err)
}

// containerd looks at the first child of an index that names no platform, and at its config.
func TestAChildWithoutAPlatformIsForItsConfigs(t *testing.T) {
	for name, tc := range map[string]struct {
		architectures []string
		want          error
	}{
		"ours":         {[]string{platforms.DefaultSpec().Architecture}, nil},
		"ours is last": {[]string{"s390x", platforms.DefaultSpec().Architecture}, registry.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			var children []ocispec.Descriptor
			for _, architecture := range tc.architectures {
				config := f.blob(fmt.Appendf(nil, `{"os":"linux","architecture":%q,"rootfs":{"diff_ids":[]}}`, architecture))
				config.MediaType = ocispec.MediaTypeImageConfig
				children = append(children, f.manifest(t, architecture, ocispec.MediaTypeImageManifest, ocispec.Manifest{
					Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{},
				}))
			}
			f.manifest(t, "v1", ocispec.MediaTypeImageIndex, ocispec.Index{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
			})
			_, err := client(t, nil).Resolve(t.Context(), f.host()+"/app:v1", platforms.Default())
			require.ErrorIs(t, err, tc.want)
		})
	}
}
