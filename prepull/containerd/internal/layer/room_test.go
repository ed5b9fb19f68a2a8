package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/layer"
)

const mib = 1 << 20

// sparse is a tar with one file of the given size, of which only the first and the last page have content: the PAX form
// 1.0, with its map in front of the content.
func sparse(tb testing.TB, size int64) []byte {
	tb.Helper()
	page := bytes.Repeat([]byte("x"), 4096)
	table := fmt.Sprintf("2\n0\n4096\n%d\n4096\n", size-4096)
	body := append([]byte(table+strings.Repeat("\x00", 512-len(table))), append(page, page...)...)
	var records strings.Builder
	for _, pair := range [][2]string{{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "file"}, {"GNU.sparse.realsize", fmt.Sprint(size)}} {
		length := len(pair[0]) + len(pair[1]) + 3
		for len(fmt.Sprint(length))+len(pair[0])+len(pair[1])+3 != length {
			length = len(fmt.Sprint(length)) + len(pair[0]) + len(pair[1]) + 3
		}
		fmt.Fprintf(&records, "%d %s=%s\n", length, pair[0], pair[1])
	}
	var out bytes.Buffer
	entry := func(name string, kind byte, content []byte) {
		block := make([]byte, 512)
		copy(block, name)
		copy(block[100:], "0000644\x000000000\x000000000\x00")
		copy(block[124:], fmt.Sprintf("%011o\x00%011o\x00", len(content), 0))
		copy(block[148:], "        ")
		block[156] = kind
		copy(block[257:], "ustar\x0000")
		sum := 0
		for _, b := range block {
			sum += int(b)
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		out.Write(block)
		out.Write(content)
		out.Write(make([]byte, (512-len(content)%512)%512))
	}
	entry("PaxHeaders/file", 'x', []byte(records.String()))
	entry("GNUSparseFile/file", tar.TypeReg, body)
	out.Write(make([]byte, 1024))
	return out.Bytes()
}

// What is written is granted before, within a file as well, and what a file says that it will take must fit as a whole.
func TestUnpackWritesOnlyWhatIsGranted(t *testing.T) {
	full := errors.New("no room")
	grant := func(most int64, asked *int) layer.Room {
		granted := int64(0)
		return func(now, later int64) (int64, error) {
			*asked++
			if granted+now+later > most {
				return 0, full
			}
			step := max(now, min(mib, most-granted))
			granted += step
			return step, nil
		}
	}
	var many []entry
	for i := range 3000 {
		many = append(many, entry{name: fmt.Sprintf("%d", i), body: "x"})
	}
	for name, tc := range map[string]struct {
		tarball []byte
		most    int64
		asks    int // at least
		want    error
	}{
		"one large file":               {tarOf(t, entry{name: "f", body: strings.Repeat("x", 8*mib)}), 9 * mib, 8, nil},
		"one that does not fit":        {tarOf(t, entry{name: "f", body: strings.Repeat("x", 8*mib)}), 7 * mib, 1, full},
		"many small files":             {tarOf(t, many...), 30 * mib, 20, nil},
		"more of them than fit":        {tarOf(t, many...), 20 * mib, 20, full},
		"a hole that would not fit":    {sparse(t, 1<<40), 1 << 30, 1, full},
		"a hole that would fit":        {sparse(t, 64*mib), 65 * mib, 1, nil},
		"inodes are looked at as well": {tarOf(t, append(many, append(many, many...)...)...), 1 << 40, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			dir := t.TempDir()
			_, err := layer.Unpack(t.Context(), dir, describe(tc.tarball, tc.tarball, ocispec.MediaTypeImageLayer), bytes.NewReader(tc.tarball),
				layer.Options{Room: grant(tc.most, &asked)})
			require.ErrorIs(t, err, tc.want)
			require.NotErrorIs(t, err, layer.ErrHostile)
			require.GreaterOrEqual(t, asked, tc.asks)
			require.LessOrEqual(t, usedBy(t, dir), tc.most)
		})
	}
}

// usedBy is what the files of a folder take on the disk.
func usedBy(t *testing.T, dir string) int64 {
	t.Helper()
	var used int64
	require.NoError(t, filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			used += stat.Blocks * 512
		}
		return err
	}))
	return used
}

func TestHolesStayHoles(t *testing.T) {
	const size = 256 * mib
	tarball := sparse(t, size)
	dir := t.TempDir()
	_, err := layer.Unpack(t.Context(), dir, describe(tarball, tarball, ocispec.MediaTypeImageLayer), bytes.NewReader(tarball), layer.Options{})
	require.NoError(t, err)
	require.LessOrEqual(t, usedBy(t, dir), int64(mib))
	f, err := os.Open(filepath.Join(dir, "file"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	info, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, int64(size), info.Size())
	want := append(bytes.Repeat([]byte("x"), 4096), make([]byte, 4096)...)
	got := make([]byte, 8192)
	_, err = f.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, want, got)
	_, err = f.ReadAt(got, size-8192)
	require.NoError(t, err)
	require.Equal(t, append(want[4096:], want[:4096]...), got)
}

// A hole has no end in time: what is read of it comes from nowhere.
func TestHolesEndWithTheirContext(t *testing.T) {
	tarball := sparse(t, 1<<42)
	ctx, cancel := context.WithCancel(t.Context())
	reader := io.MultiReader(bytes.NewReader(tarball[:6144]), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.ErrUnexpectedEOF }))
	_, err := layer.Unpack(ctx, t.TempDir(), describe(tarball, tarball, ocispec.MediaTypeImageLayer), reader, layer.Options{})
	require.Error(t, err)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
