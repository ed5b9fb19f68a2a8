package pull_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// entry is one tar entry of a hand-made layer.
type entry struct {
	name, link, body string
	kind             byte
	mode             int64
	uid, gid         int
	xattrs           map[string]string
	major, minor     int64
}

var when = time.Date(2025, 3, 4, 5, 6, 7, 89, time.UTC)

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for i, e := range entries {
		header := &tar.Header{
			Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Gid: e.gid, Size: int64(len(e.body)),
			ModTime: when.Add(time.Duration(i) * time.Hour), Devmajor: e.major, Devminor: e.minor, Format: tar.FormatPAX,
		}
		if header.Typeflag == 0 {
			header.Typeflag = tar.TypeReg
		}
		if header.Mode == 0 {
			header.Mode = 0o644
		}
		for key, value := range e.xattrs {
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords["SCHILY.xattr."+key] = value
		}
		require.NoError(t, tw.WriteHeader(header))
		_, err := io.WriteString(tw, e.body)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	return buf.Bytes()
}

// rawLayer is a layer made of given bytes.
type rawLayer struct {
	v1.Layer
	diff v1.Hash
}

func (l rawLayer) DiffID() (v1.Hash, error) { return l.diff, nil }

func layerOf(t *testing.T, mediaType types.MediaType, tarball []byte) v1.Layer {
	t.Helper()
	var out bytes.Buffer
	switch mediaType {
	case types.OCILayer, types.DockerLayer:
		zip := gzip.NewWriter(&out)
		_, err := zip.Write(tarball)
		require.NoError(t, err)
		require.NoError(t, zip.Close())
	case types.OCILayerZStd:
		encoder, err := zstd.NewWriter(&out)
		require.NoError(t, err)
		_, err = encoder.Write(tarball)
		require.NoError(t, err)
		require.NoError(t, encoder.Close())
	default:
		out.Write(tarball)
	}
	diff, _, err := v1.SHA256(bytes.NewReader(tarball))
	require.NoError(t, err)
	return rawLayer{Layer: static.NewLayer(out.Bytes(), mediaType), diff: diff}
}

// zoo is an image with all that layers do to each other: whiteouts, opaque directories, hard links across folders, links
// that lead out, attributes, devices, directories that are only implied, a file that replaces a directory and the other
// way round; in gzip, zstd and uncompressed layers.
func zoo(t *testing.T, program v1.Layer) v1.Image {
	t.Helper()
	dir := func(name string, mode int64, uid int) entry {
		return entry{name: name, kind: tar.TypeDir, mode: mode, uid: uid, gid: uid}
	}
	base := tarOf(
		t,
		dir("./", 0o700, 5),
		dir("etc/", 0o755, 0),
		entry{name: "etc/keep", body: "kept"},
		entry{name: "etc/gone", body: "goes"},
		dir("var/", 0o750, 7),
		dir("var/lib/", 0o2771, 8),
		entry{name: "var/lib/.wh.nothing"},
		entry{name: "var/lib/data", body: "below", uid: 9, gid: 10},
		dir("opaque/", 0o755, 0),
		entry{name: "opaque/old", body: "old"},
		dir("becomes-file/", 0o755, 0),
		entry{name: "becomes-file/x", body: "x"},
		entry{name: "becomes-dir", body: "file"},
		entry{name: "bin-link", kind: tar.TypeSymlink, link: "../../../../etc"},
		entry{name: "abs-link", kind: tar.TypeSymlink, link: "/var/lib"},
		entry{name: "suid", body: "run", mode: 0o4755},
		entry{name: "cap", body: "c", xattrs: map[string]string{"user.note": "hello", "security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		entry{name: "hard-a", body: "one body"},
		entry{name: "etc/hard-b", kind: tar.TypeLink, link: "hard-a"},
		entry{name: "pipe", kind: tar.TypeFifo, mode: 0o600},
		entry{name: "null", kind: tar.TypeChar, mode: 0o666, major: 1, minor: 3},
	)
	middle := tarOf(
		t,
		entry{name: "etc/.wh.gone"},
		entry{name: "var/lib/implied/deep/file", body: "no entry names its directories"},
		entry{name: "abs-link/through-link", body: "lies in var/lib"},
		dir("opaque/", 0o711, 3),
		entry{name: "opaque/.wh..wh..opq"},
		entry{name: "opaque/new", body: "new"},
		entry{name: "becomes-file", body: "now a file"},
		dir("becomes-dir/", 0o755, 0),
		entry{name: "becomes-dir/y", body: "y"},
		entry{name: "twice", body: "first"},
		entry{name: "twice", body: "second wins"},
	)
	top := tarOf(
		t,
		entry{name: "var/lib/implied/again", body: "implied by two layers"},
		entry{name: "hard-a", body: "replaced above"},
		dir("late/", 0o555, 1),
		entry{name: "late/file", body: "in a read-only directory"},
		entry{name: "/absolute", body: "stays inside"},
		entry{name: "../../escape", body: "stays inside as well"},
	)
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(
		img,
		mutate.Addendum{Layer: layerOf(t, types.OCILayer, base), MediaType: types.OCILayer},
		mutate.Addendum{Layer: layerOf(t, types.OCILayerZStd, middle), MediaType: types.OCILayerZStd},
		mutate.Addendum{Layer: layerOf(t, types.OCIUncompressedLayer, top), MediaType: types.OCIUncompressedLayer},
		mutate.Addendum{Layer: program, MediaType: types.OCILayer},
		// The same layer twice, as builds that change nothing make them, and once as the base already.
		mutate.Addendum{Layer: layerOf(t, types.OCILayer, tarOf(t)), MediaType: types.OCILayer},
		mutate.Addendum{Layer: layerOf(t, types.OCILayer, tarOf(t)), MediaType: types.OCILayer},
	)
	require.NoError(t, err)
	return entrypoint(t, img)
}

func entrypoint(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", "amd64", []string{"/bin/wait"}
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	return img
}
