package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/layer"
)

// entry is one tar entry: a directory when its name ends with a slash, a link when it has a target.
type entry struct {
	name, body, link string
	kind             byte
}

func tarOf(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.body)), Typeflag: tar.TypeReg, Linkname: e.link, Uid: os.Getuid(), Gid: os.Getgid()}
		switch {
		case e.kind == tar.TypeXGlobalHeader:
			h = &tar.Header{Name: e.name, Typeflag: e.kind, PAXRecords: map[string]string{"comment": "none"}}
		case e.kind != 0:
			h.Typeflag = e.kind
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		}
		require.NoError(tb, tw.WriteHeader(h))
		_, err := io.WriteString(tw, e.body)
		require.NoError(tb, err)
	}
	require.NoError(tb, tw.Close())
	return buf.Bytes()
}

func zip(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return buf.Bytes()
}

func describe(packed, tarball []byte, mediaType string) layer.Layer {
	return layer.Layer{
		Desc:   ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(packed), Size: int64(len(packed))},
		DiffID: digest.FromBytes(tarball), Base: true,
	}
}

func unpack(tb testing.TB, l layer.Layer, data []byte) (string, error) {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "inner", "root")
	require.NoError(tb, os.MkdirAll(dir, 0o755))
	_, err := layer.Unpack(tb.Context(), dir, l, bytes.NewReader(data), layer.Options{Allowed: 4 << 20})
	return dir, err
}

func TestUnpackReadsEveryCompression(t *testing.T) {
	tarball := tarOf(t, entry{name: "etc/"}, entry{name: "etc/app", body: strings.Repeat("configuration ", 100_000)})
	encoder, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		data      []byte
		mediaType string
	}{
		"gzip":                         {zip(t, tarball), ocispec.MediaTypeImageLayerGzip},
		"docker's gzip":                {zip(t, tarball), "application/vnd.docker.image.rootfs.diff.tar.gzip"},
		"zstd":                         {encoder.EncodeAll(tarball, nil), ocispec.MediaTypeImageLayerZstd},
		"zstd that is declared gzip":   {encoder.EncodeAll(tarball, nil), ocispec.MediaTypeImageLayerGzip},
		"none":                         {tarball, ocispec.MediaTypeImageLayer},
		"none that is declared gzip":   {tarball, ocispec.MediaTypeImageLayerGzip},
		"gzip with bytes behind it":    {append(zip(t, tarball), zip(t, nil)...), ocispec.MediaTypeImageLayerGzip},
		"a skippable zstd frame":       {append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, encoder.EncodeAll(tarball, nil)...), ocispec.MediaTypeImageLayerZstd},
		"gzip in two members":          {append(zip(t, tarball[:1000]), zip(t, tarball[1000:])...), ocispec.MediaTypeImageLayerGzip},
		"gzip without its padding":     {zip(t, tarball), "application/vnd.docker.image.rootfs.diff.tar.gzip"},
		"nothing but the tar's ending": {zip(t, tarball), ocispec.MediaTypeImageLayerGzip},
	} {
		t.Run(name, func(t *testing.T) {
			require.True(t, layer.Supported(tc.mediaType))
			dir, err := unpack(t, describe(tc.data, tarball, tc.mediaType), tc.data)
			require.NoError(t, err)
			info, err := os.Stat(filepath.Join(dir, "etc/app"))
			require.NoError(t, err)
			require.Equal(t, int64(1_400_000), info.Size())
		})
	}
}

func TestUnpackTellsCorruptFromHostile(t *testing.T) {
	tarball := tarOf(t, entry{name: "file", body: strings.Repeat("x", 100_000)})
	packed := zip(t, tarball)
	good := describe(packed, tarball, ocispec.MediaTypeImageLayerGzip)
	wrongDiff := good
	wrongDiff.DiffID = digest.FromString("another")
	short := good
	short.Desc.Size--
	flipped := bytes.Clone(packed)
	flipped[len(flipped)/2] ^= 1
	noTar := zip(t, []byte(strings.Repeat("this is no tar archive at all. ", 100)))
	bomb := zip(t, make([]byte, 20<<20))
	for name, tc := range map[string]struct {
		layer layer.Layer
		data  []byte
		want  error
	}{
		"a flipped bit":             {good, flipped, layer.ErrCorrupt},
		"cut short":                 {good, packed[:len(packed)/2], layer.ErrCorrupt},
		"one byte too many":         {good, append(bytes.Clone(packed), 0), layer.ErrCorrupt},
		"a size that lies":          {short, packed, layer.ErrCorrupt},
		"a diff ID that lies":       {wrongDiff, packed, layer.ErrHostile},
		"no tar":                    {describe(noTar, nil, ocispec.MediaTypeImageLayerGzip), noTar, layer.ErrHostile},
		"no gzip behind the header": {describe([]byte{0x1f, 0x8b, 8, 1, 2, 3}, nil, ocispec.MediaTypeImageLayerGzip), []byte{0x1f, 0x8b, 8, 1, 2, 3}, layer.ErrHostile},
		"a bomb":                    {describe(bomb, nil, ocispec.MediaTypeImageLayerGzip), bomb, layer.ErrOversize},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(t, tc.layer, tc.data)
			require.ErrorIs(t, err, tc.want)
		})
	}
}

// A layer of nothing but paths is small on the disk and has no end in memory: those of directories are remembered until
// the last entry, and of a base layer something of every path.
func TestUnpackBoundsWhatItRemembers(t *testing.T) {
	var implied, named, files, fine []entry
	for i := range 3000 {
		name := fmt.Sprintf("%s/%d", strings.Repeat("d", 200), i)
		implied = append(implied, entry{name: name + "/file"})
		named = append(named, entry{name: name + "/"})
		files = append(files, entry{name: name + "f"}, entry{name: name + "g"}, entry{name: name + "h"})
		fine = append(fine, entry{name: fmt.Sprintf("%d", i)})
	}
	for name, tc := range map[string]struct {
		entries []entry
		names   int64
		want    error
	}{
		"directories that are implied": {implied, 500_000, layer.ErrMemory},
		"directories":                  {named, 500_000, layer.ErrMemory},
		"files of a base layer":        {files, 100_000, layer.ErrMemory},
		"fewer of them":                {fine, 100_000, nil},
		"the same when more is let in": {implied, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tarball := tarOf(t, tc.entries...)
			_, err := layer.Unpack(t.Context(), t.TempDir(), describe(tarball, tarball, ocispec.MediaTypeImageLayer), bytes.NewReader(tarball),
				layer.Options{AllowedNames: tc.names})
			require.ErrorIs(t, err, tc.want)
		})
	}
}

func TestUnpackPassesOnErrorsOfTheMachine(t *testing.T) {
	tarball := tarOf(t, entry{name: "file", body: strings.Repeat("x", 1<<20)})
	l := describe(tarball, tarball, ocispec.MediaTypeImageLayer)
	reset := errors.New("connection reset")
	_, err := layer.Unpack(t.Context(), t.TempDir(), l, io.MultiReader(bytes.NewReader(tarball[:600<<10]), iotest.ErrReader(reset)), layer.Options{})
	require.ErrorIs(t, err, reset)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = layer.Unpack(ctx, t.TempDir(), l, bytes.NewReader(tarball), layer.Options{})
	require.ErrorIs(t, err, context.Canceled)

	var many []entry
	for i := range 9000 {
		many = append(many, entry{name: "f" + strings.Repeat("x", i%100) + string(rune('a'+i%26))})
	}
	tarball = tarOf(t, many...)
	full := errors.New("no room")
	_, err = layer.Unpack(t.Context(), t.TempDir(), describe(tarball, tarball, ocispec.MediaTypeImageLayer), bytes.NewReader(tarball),
		layer.Options{Room: func(int64, int64) (int64, error) { return 0, full }})
	require.ErrorIs(t, err, full)
	require.NotErrorIs(t, err, layer.ErrHostile)
}

// hostilePaths try to leave the folder that a layer is unpacked into.
var hostilePaths = [][]entry{
	{{name: "../outside", body: "x"}},
	{{name: "/../../outside", body: "x"}},
	{{name: "a/../../../outside", body: "x"}},
	{{name: "link", link: "../.."}, {name: "link/outside", body: "x"}},
	{{name: "link", link: "/"}, {name: "link/tmp/headstart-outside", body: "x"}},
	{{name: "d/"}, {name: "d/up", link: "../../.."}, {name: "d/up/up2", link: ".."}, {name: "d/up/up2/outside", body: "x"}},
	{{name: "hard", kind: tar.TypeLink, link: "../../outside-target"}},
	{{name: "hard", kind: tar.TypeLink, link: "/etc/passwd"}},
	{{name: "s", link: "/etc"}, {name: "hard", kind: tar.TypeLink, link: "s/passwd"}},
	{{name: ".wh..", body: ""}},
	{{name: ".wh...", body: ""}},
	{{name: "a/.wh.../x", body: ""}},
	{{name: "link", link: "../.."}, {name: "link/.wh.canary"}},
	{{name: "link", link: "../.."}, {name: "link/.wh..wh..opq"}},
	{{name: "x", body: "1"}, {name: "x/y", body: "2"}},
	{{name: "loop", link: "loop"}, {name: "loop/file", body: "x"}},
	{{name: strings.Repeat("deep/", 20_000) + "x", body: "x"}},
	{{name: "hard", kind: tar.TypeLink, link: strings.Repeat("deep/", 20_000) + "x"}},
	{{name: "", body: ""}, {name: ".", body: ""}, {name: "./", body: ""}},
}

// requireContained checks that nothing but the folder itself has changed: not the canaries around it, not this machine.
func requireContained(tb testing.TB, tarball []byte, base bool) {
	tb.Helper()
	outer := tb.TempDir()
	dir := filepath.Join(outer, "inner", "root")
	require.NoError(tb, os.MkdirAll(dir, 0o755))
	for _, canary := range []string{filepath.Join(outer, "canary"), filepath.Join(outer, "inner", "canary")} {
		require.NoError(tb, os.WriteFile(canary, []byte("alive"), 0o600))
	}
	l := describe(tarball, tarball, ocispec.MediaTypeImageLayer)
	l.Base = base
	_, _ = layer.Unpack(tb.Context(), dir, l, bytes.NewReader(tarball), layer.Options{}) // refused or not
	var found []string
	require.NoError(tb, filepath.WalkDir(outer, func(path string, d os.DirEntry, err error) error {
		if d.IsDir() && path == dir {
			return filepath.SkipDir
		}
		rel, relErr := filepath.Rel(outer, path)
		found = append(found, rel)
		return errors.Join(err, relErr)
	}))
	require.Equal(tb, []string{".", "canary", "inner", "inner/canary"}, found)
	require.NoFileExists(tb, "/tmp/headstart-outside")
}

func TestHostilePathsStayInside(t *testing.T) {
	for _, entries := range hostilePaths {
		for _, base := range []bool{true, false} {
			requireContained(t, tarOf(t, entries...), base)
		}
	}
}

// FuzzPaths makes layers of two links and a file with any names.
func FuzzPaths(f *testing.F) {
	for _, entries := range hostilePaths {
		last := entries[len(entries)-1]
		f.Add(entries[0].name, entries[0].link, last.name, last.link, byte(0))
	}
	f.Fuzz(func(t *testing.T, link, target, name, hard string, kinds byte) {
		for _, s := range []string{link, target, name, hard} {
			if len(s) > 300 || strings.ContainsRune(s, 0) {
				return // the tar writer refuses it: there is no such layer
			}
		}
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		kind := byte(tar.TypeReg)
		if kinds&1 != 0 {
			kind = tar.TypeDir
		}
		for _, h := range []*tar.Header{
			{Name: link, Linkname: target, Typeflag: tar.TypeSymlink},
			{Name: name, Typeflag: kind, Mode: 0o755},
			{Name: name + "/.wh.x", Typeflag: tar.TypeReg},
			{Name: link + "/z", Linkname: hard, Typeflag: tar.TypeLink},
		} {
			if tw.WriteHeader(h) != nil {
				return // the tar writer refuses it: there is no such layer
			}
		}
		require.NoError(t, tw.Close())
		requireContained(t, buf.Bytes(), kinds&2 == 0)
	})
}

func TestSupportedRefusesWhatItCannotRead(t *testing.T) {
	for _, mediaType := range []string{
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "application/vnd.erofs.layer.v1", "text/plain", "",
	} {
		require.False(t, layer.Supported(mediaType), mediaType)
	}
}
