package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/go-logr/logr"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/registry"
)

// fake is a registry of blobs and manifests that misbehaves as a test tells it to.
type fake struct {
	server *httptest.Server
	mu     sync.Mutex
	// objects by "blobs/<digest>" or "manifests/<reference>".
	objects  map[string][]byte
	requests []*http.Request
	sent     atomic.Int64
	// meddle may answer a request itself; it then returns true.
	meddle func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{objects: map[string][]byte{}}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) host() string { return strings.TrimPrefix(f.server.URL, "http://") }

func (f *fake) blob(data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(data), Size: int64(len(data))}
	f.objects["blobs/"+desc.Digest.String()] = data
	return desc
}

func (f *fake) manifest(t *testing.T, tag, mediaType string, doc any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(doc)
	require.NoError(t, err)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	f.objects["manifests/"+tag], f.objects["manifests/"+desc.Digest.String()] = data, data
	return desc
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	f.mu.Unlock()
	if f.meddle != nil && f.meddle(w, r) {
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) < 4 {
		return
	}
	data, known := f.objects[strings.Join(parts[len(parts)-2:], "/")]
	if !known {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"no such\nthing"}]}`)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	http.ServeContent(counting{w, &f.sent}, r, "", time.Time{}, bytes.NewReader(data))
}

func (f *fake) count(match func(*http.Request) bool) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if match(r) {
			n++
		}
	}
	return n
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p))) // before the client can have them
	return c.ResponseWriter.Write(p)
}

const chunk = 64 << 10

// client makes a Client that reaches hosts by plain HTTP and reads hosts.toml from dirs.
func client(t *testing.T, change func(*registry.Config)) *registry.Client {
	t.Helper()
	cfg := registry.Config{UserAgent: "test", Chunk: chunk, Connections: 4, Log: logr.Discard()}
	if change != nil {
		change(&cfg)
	}
	return registry.New(cfg)
}

func noise(t *testing.T, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	_, err := rand.Read(data)
	require.NoError(t, err)
	return data
}

func read(t *testing.T, c *registry.Client, name string, desc ocispec.Descriptor, options registry.ReadOptions) ([]byte, error) {
	t.Helper()
	repo, err := c.Repository(t.Context(), name)
	require.NoError(t, err)
	r := repo.Open(t.Context(), desc, options)
	data, err := io.ReadAll(r)
	require.NoError(t, r.Close())
	return data, err
}

func TestReaderDeliversInOrder(t *testing.T) {
	f := newFake(t)
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 10*chunk + 17} {
		data := noise(t, size)
		desc := f.blob(data)
		var fetched atomic.Int64
		got, err := read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{OnBytes: func(n int64) { fetched.Add(n) }})
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "%d bytes", size)
		require.Equal(t, int64(size), fetched.Load())
		if size > 5 {
			got, err = read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{Offset: 5})
			require.NoError(t, err)
			require.True(t, bytes.Equal(data[5:], got), "%d bytes from the sixth", size)
		}
	}
}

// TestReaderSurvives breaks ranges in every way that heals, and allows no byte twice unless it was lost on the way.
func TestReaderSurvives(t *testing.T) {
	hijack := func(w http.ResponseWriter) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	}
	cases := map[string]func(w http.ResponseWriter, r *http.Request, n int) bool{
		"503": func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		},
		"429": func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		},
		"a cut connection": func(w http.ResponseWriter, _ *http.Request, _ int) bool { hijack(w); return true },
		"a lying range header": func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("Content-Range", "bytes 7-9/524288")
			w.WriteHeader(http.StatusPartialContent)
			return true
		},
	}
	for name, fault := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			data := noise(t, 8*chunk)
			desc := f.blob(data)
			var hits atomic.Int64
			f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
				n := int(hits.Add(1))
				return n%3 == 0 && n < 20 && fault(w, r, n)
			}
			var fresh atomic.Int64
			got, err := read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{OnNew: func(n int64) { fresh.Add(n) }})
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			require.Equal(t, int64(len(data)), f.sent.Load(), "no byte twice")
			require.Equal(t, int64(len(data)), fresh.Load())
		})
	}
}

func TestReaderGoesOnWhereABodyBroke(t *testing.T) {
	f := newFake(t)
	data := noise(t, 4*chunk)
	desc := f.blob(data)
	var broken atomic.Int64
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		var first, last int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil || broken.Add(1) > 6 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		w.Header().Set("Content-Length", fmt.Sprint(last-first+1))
		w.WriteHeader(http.StatusPartialContent)
		some := data[first : first+min(1000, last-first)]
		f.sent.Add(int64(len(some)))
		_, _ = w.Write(some)
		return true // the server ends the connection: the body is short
	}
	got, err := read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Equal(t, int64(len(data)), f.sent.Load(), "no byte twice")
}

// kept is a Partial in memory.
type kept struct {
	mu   sync.Mutex
	data []byte
	have map[int64]int // by the beginning of a range
}

func (k *kept) Load(offset int64, data []byte) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return copy(data, k.data[offset:offset+int64(k.have[offset])])
}

func (k *kept) Save(offset int64, data []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	start := offset / chunk * chunk
	if start+int64(k.have[start]) != offset {
		panic("bytes that do not follow those before") // no test's goroutine: it cannot fail the test otherwise
	}
	k.have[start] += copy(k.data[offset:], data)
}

// What came before a Reader was closed, whole ranges and parts of them, is not asked for again.
func TestReaderGoesOnWithWhatWasKept(t *testing.T) {
	f := newFake(t)
	data := noise(t, 6*chunk+100)
	desc := f.blob(data)
	var requests atomic.Int64
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		var first, last int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil || requests.Add(1) < 3 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = counting{w, &f.sent}.Write(data[first : first+50])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
	k := &kept{data: make([]byte, len(data)), have: map[int64]int{}}
	came := func() (n int64) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, have := range k.have {
			n += int64(have)
		}
		return n
	}
	c := client(t, nil)
	repo, err := c.Repository(t.Context(), f.host()+"/team/app:v1")
	require.NoError(t, err)
	r := repo.Open(t.Context(), desc, registry.ReadOptions{Partial: k})
	require.Eventually(t, func() bool { return came() == 2*chunk+2*50 }, 10*time.Second, time.Millisecond, "two ranges, and of two more the beginning")
	require.NoError(t, r.Close())
	before := came()

	f.meddle = nil
	var counted, fresh atomic.Int64
	got, err := read(t, c, f.host()+"/team/app:v1", desc, registry.ReadOptions{Partial: k, OnBytes: func(n int64) { counted.Add(n) }, OnNew: func(n int64) { fresh.Add(n) }})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Equal(t, int64(len(data)), f.sent.Load(), "no byte twice")
	require.Equal(t, int64(len(data))-before, counted.Load(), "what was kept did not come over the network")
	require.Equal(t, int64(len(data)), came())
	require.Equal(t, int64(len(data)), fresh.Load(), "and every byte is told of once")
}

func TestReaderStreamsFromAServerWithoutRanges(t *testing.T) {
	f := newFake(t)
	data := noise(t, 9*chunk)
	desc := f.blob(data)
	var whole atomic.Int64
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Header.Get("Range") == "" && whole.Add(1) == 1 {
			_, _ = w.Write(data[:3*chunk]) // breaks off once
			return true
		}
		_, _ = w.Write(data)
		return true
	}
	var fresh atomic.Int64
	got, err := read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{OnNew: func(n int64) { fresh.Add(n) }})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Equal(t, int64(len(data)), fresh.Load())
}

func TestReaderRefusesASizeThatLies(t *testing.T) {
	f := newFake(t)
	desc := f.blob(noise(t, 3*chunk))
	desc.Size -= 100
	_, err := read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.ErrorIs(t, err, registry.ErrRefused)
	desc.Size += 10 * chunk
	_, err = read(t, client(t, nil), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.ErrorIs(t, err, registry.ErrRefused)
}

func TestReaderUsesARedirectAgainUntilItExpires(t *testing.T) {
	origin, store := newFake(t), newFake(t)
	data := noise(t, 12*chunk)
	desc := store.blob(data)
	var served atomic.Int64
	store.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("signature") == "old" && served.Add(1) > 5 {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	var redirects atomic.Int64
	origin.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		signature := "old"
		if redirects.Add(1) > 1 {
			signature = "new"
		}
		if r.Header.Get("Authorization") != "" {
			signature = ""
		}
		http.Redirect(w, r, store.server.URL+r.URL.Path+"?signature="+signature, http.StatusTemporaryRedirect)
		return true
	}
	got, err := read(t, client(t, func(c *registry.Config) { c.Connections = 1 }), origin.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Less(t, int(redirects.Load()), 12, "not one for every range")
}

func TestCloseInMidRead(t *testing.T) {
	f := newFake(t)
	desc := f.blob(noise(t, 30*chunk))
	c := client(t, nil)
	repo, err := c.Repository(t.Context(), f.host()+"/team/app:v1")
	require.NoError(t, err)
	for range 20 {
		r := repo.Open(t.Context(), desc, registry.ReadOptions{})
		_, err = io.CopyN(io.Discard, r, chunk/2)
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	_, err = read(t, c, f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err, "all buffers have come back")
}

func TestCredentialsAreRefreshedOnce(t *testing.T) {
	f := newFake(t)
	data := noise(t, 2*chunk)
	desc := f.blob(data)
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		if _, secret, _ := r.BasicAuth(); secret != "new" {
			w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	var fresh atomic.Int64
	secret := "new"
	lookup := func(_ context.Context, image, host string, attempt int) (string, string, error) {
		if image != f.host()+"/team/app" || host != f.host() {
			return "", "", fmt.Errorf("asked for %s at %s", image, host)
		}
		switch attempt {
		case 0:
			return "user", "old", nil
		case 1:
			fresh.Add(1)
			return "user", secret, nil
		}
		return "", "", nil // no others fit
	}
	got, err := read(t, client(t, func(c *registry.Config) { c.Credentials, c.Connections = lookup, 1 }), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))

	secret = "wrong as well"
	fresh.Store(0)
	_, err = read(t, client(t, func(c *registry.Config) { c.Credentials, c.Connections = lookup, 1 }), f.host()+"/team/app:v1", desc, registry.ReadOptions{})
	require.ErrorIs(t, err, registry.ErrUnauthorized)
	require.NotContains(t, err.Error(), secret)
	require.Equal(t, int64(1), fresh.Load(), "once, and then it is final")
}

// TestTheNextCredentialsAreTried when those that fit best are refused, as the kubelet does, but not for ever.
func TestTheNextCredentialsAreTried(t *testing.T) {
	for name, status := range map[string]int{"not logged in": http.StatusUnauthorized, "forbidden": http.StatusForbidden} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			data := noise(t, 8*chunk)
			desc := f.blob(data)
			var seen sync.Map
			var right atomic.Value
			right.Store("third")
			f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
				_, secret, known := r.BasicAuth()
				if secret == right.Load() {
					return false
				}
				seen.Store(secret, true)
				w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
				if known {
					w.WriteHeader(status)
				} else {
					w.WriteHeader(http.StatusUnauthorized)
				}
				return true
			}
			var lookups atomic.Int64
			known := []string{"first", "first", "second", "third", "fourth", "fifth", "sixth"}
			lookup := func(_ context.Context, _, _ string, attempt int) (string, string, error) {
				if attempt > 0 {
					lookups.Add(1)
				}
				return "user", known[attempt], nil
			}
			ref := f.host() + "/team/app:v1"
			got, err := read(t, client(t, func(c *registry.Config) { c.Credentials, c.Connections = lookup, 4 }), ref, desc, registry.ReadOptions{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			for _, secret := range []string{"first", "second"} {
				_, tried := seen.Load(secret)
				require.True(t, tried, secret)
			}

			right.Store("sixth")
			lookups.Store(0)
			desc = f.blob(noise(t, chunk))
			_, err = read(t, client(t, func(c *registry.Config) { c.Credentials, c.Connections = lookup, 1 }), ref, desc, registry.ReadOptions{})
			require.ErrorIs(t, err, registry.ErrUnauthorized)
			require.Equal(t, int64(4), lookups.Load(), "the best anew, and three others")
		})
	}
}

// hostsTOML writes a hosts.toml for a registry into a new folder and returns the folder.
func hostsTOML(t *testing.T, registryHost, text string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, registryHost), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, registryHost, "hosts.toml"), []byte(text), 0o600))
	return dir
}

func TestMirrors(t *testing.T) {
	for name, tc := range map[string]struct {
		// break the mirror in this way; nil leaves it well
		meddle func(w http.ResponseWriter, r *http.Request) bool
		// bytes that come from the mirror, at most
		fromMirror int64
	}{
		"a mirror that works":     {nil, 4 * chunk},
		"a mirror without it":     {func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true }, 0},
		"a mirror that is broken": {func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }, 0},
		"a mirror that hangs":     {func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			origin, mirror := newFake(t), newFake(t)
			data := noise(t, 4*chunk)
			desc := origin.blob(data)
			mirror.blob(data)
			mirror.meddle = tc.meddle
			dir := hostsTOML(t, "registry.example", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n[host.\"%s/v2/proxied\"]\ncapabilities = [\"pull\"]\noverride_path = true\n",
				origin.server.URL, mirror.server.URL, mirror.server.URL))
			c := client(t, func(c *registry.Config) { c.HostDirs = []string{t.TempDir(), dir} })
			got, err := read(t, c, "registry.example/team/app:v1", desc, registry.ReadOptions{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			require.Equal(t, tc.fromMirror, mirror.sent.Load())
			require.Equal(t, int64(len(data))-tc.fromMirror, origin.sent.Load())
			for _, r := range mirror.requests {
				require.Equal(t, "registry.example", r.URL.Query().Get("ns"), "a mirror is told which registry is meant")
			}
			_, err = read(t, c, "registry.example/team/app:v1", desc, registry.ReadOptions{OriginOnly: true})
			require.NoError(t, err)
		})
	}
}

func TestQuarantineLeavesACorruptMirrorAlone(t *testing.T) {
	origin, mirror := newFake(t), newFake(t)
	data := noise(t, chunk)
	desc := origin.blob(data)
	mirror.objects["blobs/"+desc.Digest.String()] = noise(t, chunk)
	dir := hostsTOML(t, "registry.example", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", origin.server.URL, mirror.server.URL))
	repo, err := client(t, func(c *registry.Config) { c.HostDirs = []string{dir} }).Repository(t.Context(), "registry.example/team/app")
	require.NoError(t, err)
	r := repo.Open(t.Context(), desc, registry.ReadOptions{})
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.False(t, bytes.Equal(data, got))
	require.True(t, r.Quarantine())
	require.NoError(t, r.Close())
	r = repo.Open(t.Context(), desc, registry.ReadOptions{})
	got, err = io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.False(t, r.Quarantine(), "the origin is all there is")
	require.NoError(t, r.Close())
}

func image(t *testing.T, f *fake, layers ...ocispec.Descriptor) (ocispec.Manifest, ocispec.Descriptor) {
	t.Helper()
	config := ocispec.Image{}
	for range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromString("diff"))
	}
	data, err := json.Marshal(config)
	require.NoError(t, err)
	desc := f.blob(data)
	desc.MediaType = ocispec.MediaTypeImageConfig
	return ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: desc, Layers: layers}, desc
}

func TestResolve(t *testing.T) {
	f := newFake(t)
	manifest, config := image(t, f, f.blob([]byte("layer")))
	leaf := f.manifest(t, "plain", ocispec.MediaTypeImageManifest, manifest)
	leaf.Platform = new(platforms.DefaultSpec())
	other := leaf
	other.Platform = &ocispec.Platform{OS: "plan9", Architecture: "mips"}
	index := func(children ...ocispec.Descriptor) ocispec.Index {
		return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children}
	}
	top := f.manifest(t, "multi", ocispec.MediaTypeImageIndex, index(other, leaf))
	deep := top
	for range 5 {
		deep = f.manifest(t, "deep", ocispec.MediaTypeImageIndex, index(deep))
	}
	f.manifest(t, "foreign", ocispec.MediaTypeImageIndex, index(other))
	f.manifest(t, "nothing", "", map[string]any{"schemaVersion": 2})
	f.manifest(t, "both", "", map[string]any{"layers": []any{}, "manifests": []any{}})
	f.manifest(t, "schema1", "", map[string]any{"schemaVersion": 1, "fsLayers": []any{}})
	short := leaf
	short.Size--
	f.manifest(t, "short", "", index(short))
	negative := manifest
	negative.Layers = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: config.Digest, Size: -1}}
	f.manifest(t, "negative", "", negative)
	traversal := manifest
	traversal.Layers = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: "sha256:../../../etc/passwd", Size: 1}}
	f.manifest(t, "traversal", "", traversal)
	more := manifest
	more.Layers = append(more.Layers, more.Layers...)
	f.manifest(t, "more-layers-than-diff-ids", "", more)
	chart := manifest
	chart.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
	f.manifest(t, "chart", "", chart)
	f.objects["manifests/text"] = []byte("<html>")
	f.objects["manifests/huge"] = bytes.Repeat([]byte(" "), registry.MaxManifestBytes+1)

	resolve := func(ref string) (*registry.Image, error) {
		return client(t, nil).Resolve(t.Context(), f.host()+"/team/app"+ref, platforms.Default())
	}
	for ref, want := range map[string]ocispec.Descriptor{":plain": leaf, ":multi": top, "@" + top.Digest.String(): top} {
		img, err := resolve(ref)
		require.NoError(t, err, ref)
		require.Equal(t, want.Digest, img.Target.Digest)
		require.Equal(t, leaf.Digest, img.Manifest.Digest)
		require.Equal(t, config.Digest, img.Config.Digest)
		require.Equal(t, int64(5), img.TotalBytes())
		require.Len(t, img.DiffIDs, 1)
	}
	for ref, want := range map[string]error{
		":none": registry.ErrNotFound, ":deep": registry.ErrRefused, ":foreign": registry.ErrNotFound, ":nothing": registry.ErrUnsupported,
		":both": registry.ErrRefused, ":schema1": registry.ErrUnsupported, ":short": registry.ErrRefused, ":negative": registry.ErrRefused,
		":traversal": registry.ErrRefused, ":more-layers-than-diff-ids": registry.ErrRefused, ":chart": registry.ErrUnsupported,
		":text": registry.ErrRefused, ":huge": registry.ErrRefused, "@" + digest.FromString("none").String(): registry.ErrNotFound,
	} {
		_, err := resolve(ref)
		require.ErrorIs(t, err, want, ref)
	}
	_, err := resolve(":none")
	require.ErrorContains(t, err, "NAME_UNKNOWN no such thing", "the registry's words in one line")
}

func TestHeadResolvesATag(t *testing.T) {
	f := newFake(t)
	manifest, _ := image(t, f)
	want := f.manifest(t, "v1", ocispec.MediaTypeImageManifest, manifest)
	repo, err := client(t, nil).Repository(t.Context(), f.host()+"/team/app:v1")
	require.NoError(t, err)
	desc, err := repo.Head(t.Context(), "v1")
	require.NoError(t, err)
	require.Equal(t, want.Digest, desc.Digest)
	require.Equal(t, 1, f.count(func(r *http.Request) bool { return r.Method == http.MethodHead }))
}

func TestSignedURLsStayOutOfErrors(t *testing.T) {
	f := newFake(t)
	f.meddle = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "http://127.0.0.1:1/blob?X-Amz-Signature=hush", http.StatusTemporaryRedirect)
		return true
	}
	repo, err := client(t, nil).Repository(t.Context(), f.host()+"/team/app:v1")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, _, err = repo.Manifest(ctx, "v1")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hush")
	var asURL *url.Error
	require.False(t, errors.As(err, &asURL) && strings.Contains(asURL.URL, "hush"))
}
