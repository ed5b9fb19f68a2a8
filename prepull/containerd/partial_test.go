package containerd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const testChunk = 1000

func newPartials(t *testing.T, dir string) *partials {
	t.Helper()
	return &partials{dir: dir, inUse: map[string]*partial{}}
}

func blobOf(name string, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromString(name), Size: size}
}

func files(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	return all
}

// What a killed process had saved, its successor loads: of each range as much as had come.
func TestPartialOutlivesItsProcess(t *testing.T) {
	dir := t.TempDir()
	desc := blobOf("layer", 2500)
	data := bytes.Repeat([]byte("0123456789"), 250)
	first := newPartials(t, dir).open(desc, testChunk, true, nil)
	require.NotNil(t, first)
	require.Nil(t, newPartials(t, dir).open(desc, testChunk, true, nil), "another process has it")
	first.Save(0, data[:700])
	first.Save(700, data[700:900])
	first.Save(2000, data[2000:])
	require.NoError(t, first.file.Close(), "which is all that the kernel does when it is killed")

	all := newPartials(t, dir)
	second := all.open(desc, testChunk, true, nil)
	require.NotNil(t, second)
	require.Nil(t, all.open(desc, testChunk, true, nil), "this process has it")
	got := make([]byte, testChunk)
	require.Equal(t, 900, second.Load(0, got))
	require.Equal(t, data[:900], got[:900])
	require.Zero(t, second.Load(1000, got))
	require.Equal(t, 500, second.Load(2000, got[:500]))
	require.Equal(t, data[2000:], got[:500])
	require.EqualValues(t, 1400, second.found.Load())
	second.close(true)
	require.Len(t, files(t, dir), 1)

	third := all.open(desc, testChunk, true, nil)
	third.close(false)
	require.Empty(t, files(t, dir))
}

func TestPartialOfAnotherRangeSizeIsNotRead(t *testing.T) {
	all := newPartials(t, t.TempDir())
	one := all.open(blobOf("layer", 2500), testChunk, true, nil)
	one.Save(0, make([]byte, 900))
	one.close(true)
	other := all.open(blobOf("layer", 2500), 2*testChunk, true, nil)
	require.Zero(t, other.Load(0, make([]byte, 2*testChunk)))
	other.close(false)
}

// Whatever a file says, no more is read than was asked for, and nothing that is not there.
func TestPartialDoesNotTrustItsFile(t *testing.T) {
	all := newPartials(t, t.TempDir())
	desc := blobOf("layer", 2500)
	one := all.open(desc, testChunk, true, nil)
	_, err := one.file.WriteAt(bytes.Repeat([]byte{0xff}, 24), desc.Size)
	require.NoError(t, err)
	require.LessOrEqual(t, one.Load(2000, make([]byte, 500)), 500)
	require.NoError(t, one.file.Truncate(0))
	require.Zero(t, one.Load(0, make([]byte, testChunk)))
	one.close(false)

	require.NoError(t, os.Symlink("/etc/passwd", one.path))
	require.Nil(t, all.open(desc, testChunk, true, nil), "a link is not followed")
}

// One layer at a time goes without: so what a kill costs is one layer at most, and the largest need not be kept.
func TestOneLargeLayerIsNotKept(t *testing.T) {
	dir := t.TempDir()
	all := newPartials(t, dir)
	large := all.open(blobOf("large", keptAnyway+1), testChunk, true, nil)
	large.Save(0, make([]byte, 10))
	require.Zero(t, large.Load(0, make([]byte, 10)))
	require.Empty(t, files(t, dir))
	second := all.open(blobOf("large too", keptAnyway+1), testChunk, true, nil)
	second.Save(0, make([]byte, 10))
	require.Equal(t, 10, second.Load(0, make([]byte, 10)))
	large.close(true)
	third := all.open(blobOf("the next", keptAnyway+1), testChunk, true, nil)
	require.Nil(t, third.file)
	third.close(false)
	second.close(false)
	require.Empty(t, files(t, dir))
	(*partial)(nil).close(true)
}

// Where room is short the kept bytes are the first to go, those in use too, and what goes on does so without them.
func TestPartialsGiveWay(t *testing.T) {
	dir := t.TempDir()
	all := newPartials(t, dir)
	require.False(t, all.drop(), "there is nothing to drop")
	require.Nil(t, all.open(blobOf("no room", 2500), testChunk, false, nil))
	left := all.open(blobOf("left", 2500), testChunk, true, nil)
	left.Save(0, make([]byte, testChunk))
	left.close(true)
	used := all.open(blobOf("used", 2500), testChunk, true, nil)
	used.Save(0, make([]byte, testChunk))
	require.True(t, all.drop())
	require.Empty(t, files(t, dir))
	var stat unix.Stat_t
	require.NoError(t, unix.Fstat(int(used.file.Fd()), &stat))
	require.Zero(t, stat.Blocks)
	used.Save(0, make([]byte, testChunk))
	require.Zero(t, used.Load(0, make([]byte, testChunk)))
	used.close(true)
	require.Empty(t, files(t, dir))
}

func TestPartialOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	all := newPartials(t, dir)
	one := all.open(blobOf("layer", 1<<20), 1<<20, true, nil)
	one.Save(0, make([]byte, 1<<20))
	require.Zero(t, one.Load(0, make([]byte, 1<<20)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 60<<10), 0o600), "the room is there again")
	one.close(true)
	require.Len(t, files(t, dir), 1, "the other alone")
}

// What is left of a layer is used whatever room there is and however large it is, and goes when its image is settled.
func TestWhatIsLeftIsUsedAndGoes(t *testing.T) {
	dir := t.TempDir()
	large := blobOf("large", keptAnyway+1)
	all := newPartials(t, dir)
	all.bare = true // another large layer was first
	one := all.open(large, testChunk, true, nil)
	one.Save(0, make([]byte, 10))
	one.close(true)

	all = newPartials(t, dir)
	again := all.open(large, testChunk, false, nil)
	require.Equal(t, 10, again.Load(0, make([]byte, 10)))
	all.forget(large.Digest.Encoded())
	require.Len(t, files(t, dir), 1, "it is in use")
	again.close(true)
	other := newPartials(t, dir).open(blobOf("of another process", 2500), testChunk, true, nil)
	other.Save(0, make([]byte, 10))
	all.forget(large.Digest.Encoded(), blobOf("of another process", 0).Digest.Encoded(), "none")
	require.Len(t, files(t, dir), 1, "only the other's")
	require.False(t, all.drop())
	other.close(false)
	require.Empty(t, files(t, dir))
}

// Bytes of another boot may never have reached the disk, and those that nobody comes for are no use.
func TestPartialsAreCleared(t *testing.T) {
	root := t.TempDir()
	s, err := openStaging(root)
	require.NoError(t, err)
	one := s.partials.open(blobOf("layer", 2500), testChunk, true, nil)
	one.Save(0, make([]byte, 10))
	one.close(true)
	require.NoError(t, s.close())
	require.NoError(t, os.CopyFS(filepath.Join(s.root, "partial-another-boot"), os.DirFS(s.partials.dir)))

	s, err = openStaging(root)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(s.root, "partial-another-boot"))
	require.Len(t, files(t, s.partials.dir), 1)
	require.NoError(t, s.sweep(time.Hour))
	require.Len(t, files(t, s.partials.dir), 1)
	require.NoError(t, s.sweep(-time.Second))
	require.Empty(t, files(t, s.partials.dir))
	require.NoError(t, s.close())
}
