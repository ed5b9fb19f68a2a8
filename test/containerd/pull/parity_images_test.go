package pull_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func all(t *testing.T, from io.ReadCloser) []byte {
	t.Helper()
	data, err := io.ReadAll(from)
	require.NoError(t, err)
	require.NoError(t, from.Close())
	return data
}

// imageOf makes an image of layers.
func imageOf(t *testing.T, architecture string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		kind, err := l.MediaType()
		require.NoError(t, err)
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: kind})
		require.NoError(t, err)
	}
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	return img
}

// plain is an image of two layers, like no other.
func plain(t *testing.T, name string) v1.Image {
	t.Helper()
	base := layerOf(t, types.OCILayer, tarOf(t, entry{name: "etc/", kind: tar.TypeDir, mode: 0o755}, entry{name: "etc/name", body: name + t.Name()}))
	top := layerOf(t, types.OCILayer, tarOf(t, entry{name: "opt/app/data", body: strings.Repeat(name, 500)}))
	return imageOf(t, "amd64", base, top)
}

// layers makes a row of an image with the given tars, over a plain base.
func layers(name string, make func(t *testing.T) []v1.Layer) parityRow {
	return parityRow{name: name, put: func(t *testing.T, s *shelf) {
		t.Helper()
		base := layerOf(t, types.OCILayer, tarOf(t, entry{name: "base/", kind: tar.TypeDir, mode: 0o751, uid: 3, gid: 4}, entry{name: "base/of", body: t.Name()}))
		s.put(t, imageOf(t, "amd64", append([]v1.Layer{base}, make(t)...)...), "v1")
	}}
}

// entries is layers with one gzip layer.
func entries(name string, all ...entry) parityRow {
	return layers(name, func(t *testing.T) []v1.Layer {
		t.Helper()
		return []v1.Layer{layerOf(t, types.OCILayer, tarOf(t, all...))}
	})
}

// packed is layers with one layer of given bytes, said to unpack to a tar.
func packed(name string, kind types.MediaType, make func(tarball []byte) []byte) parityRow {
	return layers(name, func(t *testing.T) []v1.Layer {
		t.Helper()
		tarball := tarOf(t, entry{name: "file", body: t.Name()})
		diff, _, err := v1.SHA256(bytes.NewReader(tarball))
		require.NoError(t, err)
		return []v1.Layer{rawLayer{Layer: static.NewLayer(make(tarball), kind), diff: diff}}
	})
}

func zipped(data []byte) []byte {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	_, _ = zip.Write(data)
	_ = zip.Close()
	return out.Bytes()
}

// child is one of an index.
type child struct {
	architecture string
	platform     *ocispec.Platform
}

func platformOf(architecture string) *ocispec.Platform {
	return &ocispec.Platform{OS: "linux", Architecture: architecture}
}

// index makes a row of an index of plain images.
func index(name string, children ...child) parityRow {
	return parityRow{name: name, put: func(t *testing.T, s *shelf) {
		t.Helper()
		doc := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
		doc.SchemaVersion = 2
		for i, c := range children {
			layer := layerOf(t, types.OCILayer, tarOf(t, entry{name: "which", body: fmt.Sprint(t.Name(), i)}))
			img := imageOf(t, c.architecture, layer)
			s.put(t, img)
			dgst, err := img.Digest()
			require.NoError(t, err)
			raw, err := img.RawManifest()
			require.NoError(t, err)
			doc.Manifests = append(doc.Manifests, ocispec.Descriptor{
				MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(dgst.String()), Size: int64(len(raw)), Platform: c.platform,
			})
		}
		data, err := json.Marshal(doc)
		require.NoError(t, err)
		s.document(t, data, ocispec.MediaTypeImageIndex, "v1")
	}}
}

// changed makes a row of a plain image with its manifest changed.
func changed(name string, change func(m map[string]any)) parityRow {
	return parityRow{name: name, put: func(t *testing.T, s *shelf) {
		t.Helper()
		img := plain(t, name)
		s.put(t, img)
		raw, err := img.RawManifest()
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(raw, &m))
		change(m)
		data, err := json.Marshal(m)
		require.NoError(t, err)
		s.document(t, data, ocispec.MediaTypeImageManifest, "v1")
	}}
}

func lastLayer(m map[string]any) map[string]any {
	all, _ := m["layers"].([]any)
	last, _ := all[len(all)-1].(map[string]any)
	return last
}

func imageRows() []parityRow {
	amd64, arm64 := platformOf("amd64"), platformOf("arm64")
	hello := entry{name: "file", body: "hello"}
	return []parityRow{
		entries("an empty layer"),
		entries("directories that are only implied", entry{name: "base/deep/er/file", body: "x"}),
		entries("a whiteout", entry{name: "base/.wh.of"}),
		entries("an opaque directory", entry{name: "base/", kind: tar.TypeDir, mode: 0o700}, entry{name: "base/.wh..wh..opq"}, entry{name: "base/new", body: "x"}),
		entries("a whiteout without a name", entry{name: "base/.wh."}),
		entries("hard links", hello, entry{name: "other", kind: tar.TypeLink, link: "file"}),
		entries("a hard link to what lies below", entry{name: "other", kind: tar.TypeLink, link: "base/of"}),
		entries("a hard link to nothing", entry{name: "other", kind: tar.TypeLink, link: "nothing"}),
		entries("links that lead out", entry{name: "up", kind: tar.TypeSymlink, link: "../../.."}, entry{name: "up/in", body: "x"}),
		entries("a link to itself", entry{name: "loop", kind: tar.TypeSymlink, link: "loop"}, entry{name: "loop/in", body: "x"}),
		entries("paths that lead out", entry{name: "../../../out", body: "x"}),
		entries("devices and pipes", entry{name: "null", kind: tar.TypeChar, mode: 0o666, major: 1, minor: 3}, entry{name: "pipe", kind: tar.TypeFifo, mode: 0o600}),
		entries("attributes", entry{name: "file", body: "x", xattrs: map[string]string{"user.note": "n"}}),
		entries("attributes of overlayfs", entry{name: "dir/", kind: tar.TypeDir, mode: 0o755, xattrs: map[string]string{"trusted.overlay.opaque": "y"}}),
		entries("set-user-ID and sticky", entry{name: "su", body: "x", mode: 0o4755}, entry{name: "tmp/", kind: tar.TypeDir, mode: 0o1777}),
		entries("one file twice", hello, entry{name: "file", body: "again"}),
		entries("a file over a directory", entry{name: "base", body: "x"}),
		entries("a directory over a file", entry{name: "base/of/", kind: tar.TypeDir, mode: 0o755}),
		entries("a long name", entry{name: strings.Repeat("d/", 120) + strings.Repeat("n", 200), body: "x"}),
		entries("too long a name", entry{name: strings.Repeat("n", 300), body: "x"}),
		entries("another kind of entry", entry{name: "odd", kind: '7', body: "x"}),
		entries("large owners", entry{name: "file", body: "x", uid: 1 << 30, gid: 1 << 30}),
		entries("zeros in great number", entry{name: "var/log/lastlog", body: strings.Repeat("\x00", 48*mib)}),
		layers("many layers", func(t *testing.T) []v1.Layer {
			t.Helper()
			var all []v1.Layer
			for i := range 40 {
				all = append(all, layerOf(t, types.OCILayer, tarOf(t, entry{name: fmt.Sprintf("d/%d", i), body: t.Name()})))
			}
			return all
		}),
		layers("one layer twice", func(t *testing.T) []v1.Layer {
			t.Helper()
			one := layerOf(t, types.OCILayer, tarOf(t, entry{name: "d/x", body: t.Name()}))
			return []v1.Layer{one, one}
		}),
		layers("zstd and none", func(t *testing.T) []v1.Layer {
			t.Helper()
			return []v1.Layer{layerOf(t, types.OCILayerZStd, tarOf(t, hello)), layerOf(t, types.OCIUncompressedLayer, tarOf(t, hello, hello))}
		}),
		packed("a layer of plain gzip", types.OCILayer, zipped),
		packed("gzip that is declared none", types.OCIUncompressedLayer, zipped),
		packed("none that is declared gzip", types.OCILayer, bytes.Clone),
		packed("gzip in two members", types.OCILayer, func(b []byte) []byte { return append(zipped(b[:100]), zipped(b[100:])...) }),
		packed("gzip that is cut", types.OCILayer, func(b []byte) []byte { return zipped(b)[:50] }),
		packed("gzip with garbage behind it", types.OCILayer, func(b []byte) []byte { return append(zipped(b), "garbage"...) }),
		packed("another tar than the config says", types.OCILayer, func(b []byte) []byte { return zipped(append(b, make([]byte, 1024)...)) }),
		packed("no tar", types.OCILayer, func([]byte) []byte { return zipped([]byte("nothing of the kind")) }),
		packed("an encrypted layer", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", zipped),
		packed("a layer of an unknown kind", "application/vnd.example.layer", zipped),
		index("an index", child{"arm64", arm64}, child{"amd64", amd64}),
		index("an index for others only", child{"arm64", arm64}),
		index("an index without platforms, ours first", child{"amd64", nil}, child{"arm64", nil}),
		index("an index without platforms, ours last", child{"arm64", nil}, child{"amd64", nil}),
		index("an index with an attestation", child{"amd64", amd64}, child{"amd64", &ocispec.Platform{OS: "unknown", Architecture: "unknown"}}),
		index("an empty index"),
		changed("a layer whose size lies", func(m map[string]any) { lastLayer(m)["size"] = 1 }),
		changed("a layer whose digest lies", func(m map[string]any) { lastLayer(m)["digest"] = "sha256:" + strings.Repeat("0", 64) }),
		changed("a layer without a valid digest", func(m map[string]any) { lastLayer(m)["digest"] = "sha256:zz" }),
		changed("fewer layers than the config has", func(m map[string]any) { m["layers"] = m["layers"].([]any)[:1] }), //nolint:forcetypeassert,errcheck // it was marshalled by us
		changed("a config of another kind", func(m map[string]any) {
			m["config"].(map[string]any)["mediaType"] = "application/vnd.cncf.helm.config.v1+json" //nolint:forcetypeassert,errcheck // as above
		}),
		changed("no layers", func(m map[string]any) { m["layers"] = []any{} }),
		changed("an artifact's type", func(m map[string]any) { m["artifactType"] = "application/vnd.example" }),
		{name: "a manifest as text", differs: "a document says itself what it is", put: func(t *testing.T, s *shelf) {
			t.Helper()
			s.put(t, plain(t, "text"), "v1")
			for key := range s.types {
				s.types[key] = "text/plain; charset=utf-8"
			}
		}},
		{name: "a manifest that is no JSON", put: func(t *testing.T, s *shelf) {
			t.Helper()
			s.document(t, []byte("<html>"), ocispec.MediaTypeImageManifest, "v1")
		}},
		{name: "a manifest of schema 1", put: func(t *testing.T, s *shelf) {
			t.Helper()
			s.document(t, []byte(`{"schemaVersion":1,"name":"a","tag":"v1","fsLayers":[],"history":[]}`), "application/vnd.docker.distribution.manifest.v1+prettyjws", "v1")
		}},
	}
}
