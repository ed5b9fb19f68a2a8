//go:build isal && cgo

package isal_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/inflate/isal"
)

func compress(t *testing.T, data string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := io.WriteString(w, data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func TestReadsMembersInPieces(t *testing.T) {
	text := strings.Repeat("some text that compresses, and some that does not: \x00\x01\x02 ", 50_000)
	packed := append(compress(t, text), compress(t, "and more")...)
	for name, source := range map[string]io.Reader{
		"at once":     bytes.NewReader(packed),
		"by halves":   iotest.HalfReader(bytes.NewReader(packed)),
		"end at once": iotest.DataErrReader(bytes.NewReader(packed)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := io.ReadAll(isal.NewReader(source))
			require.NoError(t, err)
			require.True(t, text+"and more" == string(got))
		})
	}
	got, err := io.ReadAll(isal.NewReader(iotest.OneByteReader(bytes.NewReader(compress(t, "short")))))
	require.NoError(t, err)
	require.Equal(t, "short", string(got))
}

func TestRefuses(t *testing.T) {
	packed := compress(t, strings.Repeat("text ", 10_000))
	wrongSum := bytes.Clone(packed)
	wrongSum[len(wrongSum)-6] ^= 1
	for name, data := range map[string][]byte{
		"nothing": {}, "a wrong checksum": wrongSum, "no gzip": []byte("this is no gzip at all"), "garbage behind": append(bytes.Clone(packed), "garbage behind it"...),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := io.ReadAll(isal.NewReader(bytes.NewReader(data)))
			require.Error(t, err)
		})
	}
	for at := range packed {
		_, err := io.ReadAll(isal.NewReader(bytes.NewReader(packed[:at])))
		require.Error(t, err, "cut at %d", at)
	}
	broken := errors.New("connection reset")
	_, err := io.ReadAll(isal.NewReader(io.MultiReader(bytes.NewReader(packed[:50]), iotest.ErrReader(broken))))
	require.ErrorIs(t, err, broken)
}
