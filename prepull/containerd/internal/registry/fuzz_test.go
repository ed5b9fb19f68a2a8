package registry

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/go-logr/logr"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// FuzzManifest reads any bytes as index, manifest and config. What is accepted has valid digests, sizes and as many diff
// IDs as layers.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"layers":[]}`),
		[]byte(`{"rootfs":{"diff_ids":[]}}`))
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:x","platform":{"os":"linux","architecture":"amd64"}}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		for _, mediaType := range []string{"", ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest} {
			_, _ = documentType(ocispec.Descriptor{MediaType: mediaType}, manifest) // it must not panic
		}
		if child, err := choose(manifest, platforms.Default()); err == nil {
			require.NoError(t, child.Digest.Validate())
		}
		var image Image
		if image.readManifest(ocispec.Descriptor{}, manifest) != nil || image.readConfig(config, ocispec.Descriptor{Platform: &ocispec.Platform{}}, platforms.Default()) != nil {
			return
		}
		require.Len(t, image.DiffIDs, len(image.Layers))
		require.GreaterOrEqual(t, len(image.Layers), 0)
		for i, l := range image.Layers {
			require.NoError(t, l.Digest.Validate())
			require.NoError(t, image.DiffIDs[i].Validate())
			require.GreaterOrEqual(t, l.Size, int64(0))
		}
	})
}

// FuzzHostsTOML reads any hosts.toml: an error or hosts, and never a request.
func FuzzHostsTOML(f *testing.F) {
	f.Add("server = \"https://registry.example\"\n[host.\"http://mirror:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\nskip_verify = true\n")
	f.Add("[host.\"https://m/v2/x\"]\noverride_path = true\nca = \"/none\"\n[host.\"https://m/v2/x\".header]\nx = [\"y\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "registry.example"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "registry.example", "hosts.toml"), []byte(text), 0o600))
		repo, err := New(Config{HostDirs: []string{dir}, Log: logr.Discard()}).Repository(t.Context(), "registry.example/team/app:v1")
		if err == nil {
			require.NotEmpty(t, repo.hosts)
		}
	})
}

// FuzzAnswers reads whatever a server may put into its headers and error bodies.
func FuzzAnswers(f *testing.F) {
	f.Add("bytes 0-9/100", "120", []byte(`{"errors":[{"code":"DENIED","message":"no"}]}`))
	f.Add("", "9999999999", []byte("{}")) // more nanoseconds than there are
	f.Add("bytes */100", "Wed, 21 Oct 2026 07:28:00 GMT", []byte("{"))
	f.Fuzz(func(t *testing.T, contentRange, after string, body []byte) {
		if checkContentRange(contentRange, 0, 9, 100) == nil {
			require.Contains(t, contentRange, "0-9/")
		}
		wait := retryAfter(after, time.Now())
		require.True(t, wait >= 0 && wait <= maxRetryAfter)
		require.NotContains(t, errorMessage(body), "\n")
	})
}
