package layer_test

import (
	"archive/tar"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/test/testenv/treehash"
)

// requireAsContainerd unpacks a tar by containerd's own code and by ours, and compares: refused or not, and all that is
// left, to the last attribute.
func requireAsContainerd(tb testing.TB, tarball []byte, base bool) {
	tb.Helper()
	outer := tb.TempDir()
	theirs, ours := filepath.Join(outer, "theirs", "root"), filepath.Join(outer, "ours", "root")
	require.NoError(tb, os.MkdirAll(theirs, 0o755))
	require.NoError(tb, os.MkdirAll(ours, 0o755))
	var options []archive.ApplyOpt
	if !base {
		options = append(options, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
	}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	_, theirErr := archive.Apply(log.WithLogger(tb.Context(), logrus.NewEntry(logger)), theirs, bytes.NewReader(tarball), options...)
	l := describe(tarball, tarball, ocispec.MediaTypeImageLayer)
	l.Base = base
	result, ourErr := layer.Unpack(tb.Context(), ours, l, bytes.NewReader(tarball), layer.Options{})
	if theirErr != nil {
		require.Error(tb, ourErr, "containerd says %s", theirErr)
		return
	}
	require.NoError(tb, ourErr)
	// The times of directories without an entry are those of their making.
	epoch := []unix.Timespec{{}, {}}
	for _, rel := range append([]string{"."}, result.Implied...) {
		for _, root := range []string{theirs, ours} {
			require.NoError(tb, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, rel), epoch, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
	require.Equal(tb, treeOf(tb, theirs), treeOf(tb, ours))
}

func treeOf(tb testing.TB, root string) []string {
	tb.Helper()
	lines, err := treehash.Lines(root, treehash.Options{})
	require.NoError(tb, err)
	for i, line := range lines {
		lines[i] = whiteoutTime.ReplaceAllString(line, "$1") // a whiteout keeps the time of its making
	}
	return lines
}

var whiteoutTime = regexp.MustCompile(`( mode=20000 .*) mtime=\S+`)

func TestExtractAsContainerdDoes(t *testing.T) {
	for _, entries := range hostilePaths {
		for _, base := range []bool{true, false} {
			requireAsContainerd(t, tarOf(t, entries...), base)
		}
	}
	for name, entries := range map[string][]entry{
		"a directory that becomes a link": {
			{name: "a/b/c", body: "x"}, {name: "d/"}, {name: "a", link: "d"}, {name: "a/e", body: "y"}, {name: "a/"},
		},
		"a link over its own target": {
			{name: "d/f", body: "x"}, {name: "l", link: "d"}, {name: "l", kind: tar.TypeLink, link: "l/f"},
		},
		"whiteouts of what the layer made": {
			{name: "a/b", body: "x"},
			{name: "a/c/"},
			{name: "a/c/d", body: "y"},
			{name: "a/.wh.b"},
			{name: "e/f/g", body: "z"},
			{name: "e/.wh..wh..opq"},
			{name: ".wh.nothing"},
		},
		"a directory that is named after its files": {{name: "a/b/c", body: "x"}, {name: "a/b/"}, {name: "a/"}},
		"a directory that is removed":               {{name: "a/"}, {name: "a/b", body: "x"}, {name: "a", body: "y"}},
		"an unknown kind":                           {{name: "a", kind: '7'}},
		"a global header":                           {{name: "a", body: "x"}, {name: "b", kind: tar.TypeXGlobalHeader}},
		"a named pipe twice":                        {{name: "p", kind: tar.TypeFifo}, {name: "p", kind: tar.TypeFifo}},
		"a hard link to a link":                     {{name: "l", link: "nowhere"}, {name: "h", kind: tar.TypeLink, link: "l"}},
		"a hard link to a directory":                {{name: "d/"}, {name: "h", kind: tar.TypeLink, link: "d"}},
		"a hard link to itself":                     {{name: "f", body: "x"}, {name: "f", kind: tar.TypeLink, link: "f"}},
		"a whiteout without a name":                 {{name: "a/.wh."}},
	} {
		t.Run(name, func(t *testing.T) {
			requireAsContainerd(t, tarOf(t, entries...), true)
			requireAsContainerd(t, tarOf(t, entries...), false)
		})
	}
}

// TestExtractRandomLayersAsContainerdDoes makes layers of few names, so that entries meet all the time.
func TestExtractRandomLayersAsContainerdDoes(t *testing.T) {
	for seed := range uint64(300) {
		requireAsContainerd(t, randomLayer(t, seed), seed%2 == 0)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzExtractAsContainerdDoes(f *testing.F) {
	f.Add(uint64(1), true)
	f.Fuzz(func(t *testing.T, seed uint64, base bool) { requireAsContainerd(t, randomLayer(t, seed), base) })
}

func randomLayer(tb testing.TB, seed uint64) []byte {
	tb.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	name := func() string {
		parts := make([]string, 1+r.IntN(4))
		for i := range parts {
			parts[i] = pick("a", "b", "c", "d", "e", "l", "..")
		}
		return pick("", "", "", "/", "./") + strings.Join(parts, "/")
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for range 1 + r.IntN(24) {
		h := &tar.Header{
			Name: name(), Mode: int64(r.IntN(0o10000)) | 0o700, Uid: os.Getuid(), Gid: os.Getgid(), Format: tar.FormatPAX,
			ModTime: time.Unix(r.Int64N(1<<33)-1<<31, r.Int64N(1e9)), Typeflag: tar.TypeReg,
		}
		if os.Geteuid() == 0 && r.IntN(3) == 0 {
			h.Uid, h.Gid = r.IntN(3), r.IntN(3)
		}
		switch r.IntN(10) {
		case 0, 1, 2:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case 3:
			h.Typeflag, h.Linkname = tar.TypeSymlink, pick("", "/", "../", "../../")+name()
		case 4:
			h.Typeflag, h.Linkname = tar.TypeLink, name()
		case 5:
			h.Name = filepath.Join(filepath.Dir(h.Name), pick(".wh.a", ".wh.b", ".wh.l", ".wh..wh..opq"))
		case 6:
			h.Typeflag = tar.TypeFifo
		default:
			h.Size = int64(r.IntN(3000))
		}
		if r.IntN(6) == 0 {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "x", "SCHILY.xattr.trusted.overlay.opaque": "y"}
		}
		require.NoError(tb, tw.WriteHeader(h))
		_, err := io.CopyN(tw, zeros{}, h.Size)
		require.NoError(tb, err)
	}
	require.NoError(tb, tw.Close())
	return buf.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An implied directory may give way to a link before the layer ends. What Inherit does must not follow it.
func TestInheritFollowsNoLink(t *testing.T) {
	outer := t.TempDir()
	victim := filepath.Join(outer, "victim")
	require.NoError(t, os.Mkdir(victim, 0o700))
	lower := filepath.Join(outer, "lower")
	require.NoError(t, os.MkdirAll(filepath.Join(lower, "a", "victim"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(lower, "a", "victim"), 0o777))
	dir := filepath.Join(outer, "inner", "root")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	tarball := tarOf(t, entry{name: "a/victim/x", body: "implied"}, entry{name: "a", link: outer})
	l := describe(tarball, tarball, ocispec.MediaTypeImageLayer)
	l.Base = false
	result, err := layer.Unpack(t.Context(), dir, l, bytes.NewReader(tarball), layer.Options{})
	require.NoError(t, err)
	require.Empty(t, result.Implied)
	// Nor may a list that was written down before, or by somebody else.
	require.NoError(t, layer.Inherit(dir, []string{"a/victim"}, []string{lower}))
	info, err := os.Stat(victim)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestInheritTakesWhatContainerdTakes(t *testing.T) {
	outer := t.TempDir()
	lower, upper := filepath.Join(outer, "lower"), filepath.Join(outer, "upper")
	require.NoError(t, os.MkdirAll(filepath.Join(lower, "d"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(lower, "d"), 0o751|os.ModeSetgid))
	require.NoError(t, os.MkdirAll(filepath.Join(upper, "d", "e"), 0o755))
	setXattr(t, filepath.Join(lower, "d"), "user.note", "below")
	if os.Geteuid() == 0 {
		setXattr(t, filepath.Join(lower, "d"), "trusted.overlay.opaque", "y")
	}
	require.NoError(t, layer.Inherit(upper, []string{"d", "d/e"}, []string{filepath.Join(outer, "missing"), lower}))
	info, err := os.Stat(filepath.Join(upper, "d"))
	require.NoError(t, err)
	require.Equal(t, 0o751|os.ModeSetgid|os.ModeDir, info.Mode())
	value := make([]byte, 16)
	n, err := unix.Lgetxattr(filepath.Join(upper, "d"), "user.note", value)
	require.NoError(t, err)
	require.Equal(t, "below", string(value[:n]))
	// An opaque directory below says nothing about the one above: copied, it would hide all that lies below both.
	_, err = unix.Lgetxattr(filepath.Join(upper, "d"), "trusted.overlay.opaque", value)
	require.ErrorIs(t, err, unix.ENODATA)
}

func setXattr(t *testing.T, path, key, value string) {
	t.Helper()
	require.NoError(t, unix.Lsetxattr(path, key, []byte(value), 0))
}
