package pull_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/go-logr/logr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// shelf is a registry that holds what a row puts into it, and behaves as the row says.
type shelf struct {
	server *httptest.Server
	mu     sync.Mutex
	// objects by "blobs/<digest>" or "manifests/<reference>", and their media types.
	objects map[string][]byte
	types   map[string]string
	asked   map[string]int
	behave  func(s *shelf, w http.ResponseWriter, r *http.Request, data []byte) (done bool)
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{objects: map[string][]byte{}, types: map[string]string{}, asked: map[string]int{}}
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	return s
}

func (s *shelf) host() string { return strings.TrimPrefix(s.server.URL, "http://") }

// times counts how often something was done, with this time.
func (s *shelf) times(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[what]++
	return s.asked[what]
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	key := strings.Join(parts[max(0, len(parts)-2):], "/")
	data := s.objects[key]
	if s.behave != nil && s.behave(s, w, r, data) {
		return
	}
	if data == nil {
		w.WriteHeader(map[bool]int{true: http.StatusOK, false: http.StatusNotFound}[key == "v2/"])
		return
	}
	s.serve(w, r, key, data)
}

func (s *shelf) serve(w http.ResponseWriter, r *http.Request, key string, data []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if kind := s.types[key]; kind != "" {
		w.Header().Set("Content-Type", kind)
		hash, _, _ := v1.SHA256(strings.NewReader(string(data)))
		w.Header().Set("Docker-Content-Digest", hash.String())
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
}

func (s *shelf) put(t *testing.T, img v1.Image, references ...string) {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	for _, l := range layers {
		dgst, err := l.Digest()
		require.NoError(t, err)
		body, err := l.Compressed()
		require.NoError(t, err)
		s.objects["blobs/"+dgst.String()] = all(t, body)
	}
	config, err := img.RawConfigFile()
	require.NoError(t, err)
	name, err := img.ConfigName()
	require.NoError(t, err)
	s.objects["blobs/"+name.String()] = config
	manifest, err := img.RawManifest()
	require.NoError(t, err)
	kind, err := img.MediaType()
	require.NoError(t, err)
	s.document(t, manifest, string(kind), references...)
}

// document holds a manifest or an index under its digest and more references, and returns its digest.
func (s *shelf) document(t *testing.T, data []byte, kind string, references ...string) v1.Hash {
	t.Helper()
	hash, _, err := v1.SHA256(strings.NewReader(string(data)))
	require.NoError(t, err)
	for _, reference := range append(references, hash.String()) {
		s.objects["manifests/"+reference], s.types["manifests/"+reference] = data, kind
	}
	return hash
}

// parityRow is one odd registry or image.
type parityRow struct {
	name string
	// put fills the registry; nil puts a plain image.
	put func(t *testing.T, s *shelf)
	// behave is how the registry answers.
	behave func(s *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool
	// hosts is the hosts.toml of the registry, made with a second one; "" is none.
	hosts func(t *testing.T, s, second *shelf) string
	// login is what both know to log in with.
	login bool
	// differs is why ours is right to do what the CRI does not.
	differs string
	// engine that must have brought it; "" is any.
	engine string
}

// outcome is what a pull led to.
type outcome struct {
	There bool
	// Left is whether the name is there of an image that could not be pulled: containerd's own pull leaves some behind.
	Left bool
	// Hollow is whether layers are missing: the CRI takes some images that it cannot run.
	Hollow    bool
	Records   map[string]string
	Snapshots map[string]string
	Tree      []string
}

// TestWhatTheCRIPullsWePull holds the agent's pull against the CRI's own, on two containerds of one kind: the same outcome,
// the same records, snapshots and tree, or a reason. It prints its table.
func TestWhatTheCRIPullsWePull(t *testing.T) {
	for name, keep := range map[string]bool{"discarding layers": false, "keeping layers": true} {
		t.Run(name, func(t *testing.T) {
			theirs := testenv.StartContainerd(t, testenv.ContainerdConfig{KeepLayers: keep})
			ours := testenv.StartContainerd(t, testenv.ContainerdConfig{KeepLayers: keep})
			service, _ := cri(t, theirs)
			store := newStore(t, ours, func(c *containerd.Config) {
				c.Log, c.Credentials = logr.Discard(), func(context.Context, string, string, int) (string, string, error) { return "", "", nil }
			})
			known := newStore(t, ours, func(c *containerd.Config) {
				c.Log, c.Credentials = logr.Discard(), func(context.Context, string, string, int) (string, string, error) { return "user", "secret", nil }
			})
			var table strings.Builder
			for _, row := range append(registryRows(), imageRows()...) {
				t.Run(row.name, func(t *testing.T) {
					used := store
					if row.login {
						used = known
					}
					fmt.Fprintf(&table, "%-52s %s\n", row.name, runParity(t, row, theirs, ours, service, used))
				})
			}
			t.Logf("\n%s", table.String())
		})
	}
}

func runParity(t *testing.T, row parityRow, theirs, ours *testenv.Containerd, service criapi.ImageServiceClient, store prepull.Store) string {
	t.Helper()
	s, second := newShelf(t), newShelf(t)
	if row.put == nil {
		row.put = func(t *testing.T, s *shelf) {
			t.Helper()
			s.put(t, plain(t, row.name), "v1")
		}
	}
	row.put(t, s)
	second.objects, second.types = s.objects, s.types
	s.behave = row.behave
	if row.hosts != nil {
		text := row.hosts(t, s, second)
		for _, ctd := range []*testenv.Containerd{theirs, ours} {
			dir := filepath.Join(filepath.Dir(ctd.Root()), "certs.d", s.host())
			require.NoError(t, os.MkdirAll(dir, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600))
		}
	}
	ref := s.host() + "/team/app:v1"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request := &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}}
	if row.login {
		request.Auth = &criapi.AuthConfig{Username: "user", Password: "secret"}
	}
	_, theirErr := service.PullImage(ctx, request)
	want := outcomeOf(t, theirs, ref, theirErr == nil)
	clear(s.asked)
	puller, err := prepull.New(prepull.Config{Store: store, Images: []prepull.Image{{Ref: ref}}, MaxAttempts: 2, Log: logr.Discard()})
	require.NoError(t, err)
	ran, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = puller.Run(ran) })
	statuses, err := puller.Wait(ctx)
	stop()
	running.Wait()
	require.NoError(t, err)
	status := statuses[0]
	got := outcomeOf(t, ours, ref, status.State == prepull.StateWarm)
	told := map[bool]string{true: "pulled", false: "refused"}
	if row.differs != "" {
		require.False(t, want.There, "the CRI does so as well: there is no difference to explain")
		require.True(t, got.There, status.Error)
		return "CRI refused, agent pulled by " + status.Engine + ": " + row.differs
	}
	if want.Hollow {
		require.False(t, got.There)
		return "CRI pulled what it cannot run, agent refused"
	}
	require.Equal(t, told[want.There], told[got.There], "the CRI says %v; the agent says %s", theirErr, status.Error)
	assert.Equal(t, want.Tree, got.Tree)
	require.False(t, got.Left && !want.Left, "a name is left behind")
	got.Left = want.Left
	require.Equal(t, want, got)
	if row.engine != "" {
		require.Equal(t, row.engine, status.Engine, "%v", status.PassedOver)
	}
	return "both " + told[want.There] + " " + status.Engine
}

// outcomeOf reads what is there of an image.
func outcomeOf(t *testing.T, ctd *testenv.Containerd, ref string, there bool) outcome {
	t.Helper()
	out := outcome{There: there, Records: map[string]string{}, Snapshots: map[string]string{}}
	_, c := direct(t, ctd)
	ctx, done, err := c.WithLease(namespaces.WithNamespace(t.Context(), "k8s.io")) // for the view, which nothing refers to
	require.NoError(t, err)
	defer func() { require.NoError(t, done(ctx)) }()
	img, err := c.GetImage(ctx, ref)
	if !there {
		out.Left = err == nil
		return out
	}
	require.NoError(t, err)
	records, err := c.ImageService().List(ctx)
	require.NoError(t, err)
	for _, r := range records {
		if r.Target.Digest == img.Target().Digest {
			out.Records[r.Name] = fmt.Sprint(r.Target.MediaType, r.Target.Size, sorted(r.Labels))
		}
	}
	diffs, err := img.RootFS(ctx)
	require.NoError(t, err)
	service := c.SnapshotService(ctd.Snapshotter())
	for _, chain := range identity.ChainIDs(slices.Clone(diffs)) {
		info, err := service.Stat(ctx, chain.String())
		if errdefs.IsNotFound(err) {
			out.Hollow = true
			return out
		}
		require.NoError(t, err)
		out.Snapshots[info.Name] = info.Parent
	}
	if len(diffs) > 0 {
		out.Tree = treeOf(ctx, t, service, identity.ChainID(diffs).String())
	}
	return out
}
