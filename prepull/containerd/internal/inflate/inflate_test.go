package inflate_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/inflate"
)

func compress(tb testing.TB, level int, data []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&buf, level)
	require.NoError(tb, err)
	_, err = w.Write(data)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return buf.Bytes()
}

// samples are data of all kinds: empty, short, runs, text, noise, and mixtures larger than the buffers.
func samples() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 700_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	var words bytes.Buffer
	for words.Len() < 2_000_000 {
		words.WriteString(strings.Repeat("kubelet", random.IntN(3)))
		words.WriteByte(byte('a' + random.IntN(26)))
		words.WriteString([]string{"layer ", "snapshot ", "digest", "\x00\x00\x00\x00"}[random.IntN(4)])
	}
	skewed := make([]byte, 500_000) // long codes, thus subtables
	for i := range skewed {
		skewed[i] = byte(min(255, int(random.ExpFloat64()*9)))
	}
	return map[string][]byte{
		"empty": nil, "one byte": {7}, "zeros": make([]byte, 1_000_003), "text": words.Bytes(), "noise": noise, "skewed": skewed,
		"mixture":        bytes.Join([][]byte{words.Bytes()[:300_000], noise[:100_000], make([]byte, 300_000), words.Bytes()[:50_000]}, nil),
		"short distance": bytes.Repeat([]byte("abcdefg"), 40_000),
	}
}

func TestReadsWhatGzipWrites(t *testing.T) {
	for name, data := range samples() {
		for _, level := range []int{stdgzip.HuffmanOnly, stdgzip.NoCompression, stdgzip.BestSpeed, stdgzip.DefaultCompression, stdgzip.BestCompression} {
			packed := compress(t, level, data)
			for kind, source := range map[string]io.Reader{
				"at once": bytes.NewReader(packed), "halves": iotest.HalfReader(bytes.NewReader(packed)), "with its end": iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				got, err := io.ReadAll(inflate.NewReader(source))
				require.NoError(t, err, "%s, level %d, %s", name, level, kind)
				require.True(t, bytes.Equal(data, got), "%s, level %d, %s", name, level, kind)
			}
		}
	}
}

func TestReadsByteByByte(t *testing.T) {
	data := samples()["text"][:50_000]
	got, err := io.ReadAll(inflate.NewReader(iotest.OneByteReader(bytes.NewReader(compress(t, 6, data)))))
	require.NoError(t, err)
	require.Equal(t, data, got)
}

func TestReadsSeveralMembers(t *testing.T) {
	all := samples()
	packed := bytes.Join([][]byte{compress(t, 6, all["text"]), compress(t, 1, nil), compress(t, 9, all["noise"])}, nil)
	got, err := io.ReadAll(inflate.NewReader(bytes.NewReader(packed)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(bytes.Clone(all["text"]), all["noise"]...), got))
}

func TestReadsAHeaderWithAllFields(t *testing.T) {
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	w.Name, w.Comment, w.Extra = "layer.tar", "a comment", []byte("extra")
	_, err := w.Write([]byte("data"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	got, err := io.ReadAll(inflate.NewReader(&buf))
	require.NoError(t, err)
	require.Equal(t, "data", string(got))
}

func TestRefuses(t *testing.T) {
	packed := compress(t, 6, samples()["text"][:100_000])
	flip := func(at int) []byte {
		bad := bytes.Clone(packed)
		bad[at] ^= 0x40
		return bad
	}
	cases := map[string][]byte{
		"nothing":            {},
		"another format":     []byte("this is no gzip at all"),
		"a wrong checksum":   flip(len(packed) - 8),
		"a wrong length":     flip(len(packed) - 1),
		"garbage behind it":  append(bytes.Clone(packed), "garbage that is no member"...),
		"a flipped bit":      flip(len(packed) / 2),
		"an unknown block":   append(bytes.Clone(packed[:10]), 0xff, 0xff, 0xff),
		"a far distance":     {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0x03, 0x02, 0, 0},
		"a stored lie":       {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0x01, 5, 0, 5, 0, 'a'},
		"a header cut short": packed[:7],
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := io.ReadAll(inflate.NewReader(bytes.NewReader(data)))
			require.Error(t, err)
		})
	}
	for at := 1; at < len(packed); at += 97 {
		_, err := io.ReadAll(inflate.NewReader(bytes.NewReader(packed[:at])))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", at)
	}
}

func TestPassesOnTheSourcesError(t *testing.T) {
	packed := compress(t, 6, samples()["noise"])
	broken := errors.New("connection reset")
	_, err := io.ReadAll(inflate.NewReader(io.MultiReader(bytes.NewReader(packed[:5000]), iotest.ErrReader(broken))))
	require.ErrorIs(t, err, broken)
}

// FuzzReader compares with Go's own reader: the same data, or an error from both.
func FuzzReader(f *testing.F) {
	for _, data := range samples() {
		f.Add(compress(f, 6, data[:min(len(data), 3000)]))
	}
	f.Add([]byte{0x1f, 0x8b, 8, 0x1f, 0, 0, 0, 0, 0, 0, 5, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 4 << 20
		got, gotErr := io.ReadAll(io.LimitReader(inflate.NewReader(bytes.NewReader(data)), most))
		var want []byte
		r, wantErr := stdgzip.NewReader(bytes.NewReader(data))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(r, most))
		}
		require.Equal(t, wantErr == nil, gotErr == nil, "want %v, got %v", wantErr, gotErr)
		if wantErr == nil {
			require.True(t, bytes.Equal(want, got))
		}
	})
}
