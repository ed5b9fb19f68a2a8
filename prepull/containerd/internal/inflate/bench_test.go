package inflate_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/inflate"
	"headstart.dev/test/testenv/images"
)

// gzipReaders are the ways to inflate; a build with the tag isal adds another.
var gzipReaders = map[string]func(io.Reader) (io.Reader, error){
	"std":       func(r io.Reader) (io.Reader, error) { return stdgzip.NewReader(r) },
	"klauspost": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	"ours":      func(r io.Reader) (io.Reader, error) { return inflate.NewReader(r), nil },
}

// hugeLayer is the 2 GiB layer of the benchmark's machine-learning image, or the file that LAYER names.
func hugeLayer(b *testing.B) []byte {
	b.Helper()
	path := os.Getenv("LAYER")
	if path == "" {
		img, err := images.Build(b.Context(), images.Spec{Layers: images.MachineLearning().Layers[3:4]})
		require.NoError(b, err)
		layers, err := img.Layers()
		require.NoError(b, err)
		blob, err := layers[len(layers)-1].Compressed()
		require.NoError(b, err)
		data, err := io.ReadAll(blob)
		require.NoError(b, err)
		require.NoError(b, blob.Close())
		return data
	}
	data, err := os.ReadFile(path)
	require.NoError(b, err)
	return data
}

// BenchmarkGzip compares what there is to inflate a layer with, in this process and in a child.
func BenchmarkGzip(b *testing.B) {
	packed := hugeLayer(b)
	for name, open := range gzipReaders {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r, err := open(bytes.NewReader(packed))
				require.NoError(b, err)
				drain(b, r)
			}
		})
	}
	for _, child := range [][]string{{"unpigz", "-d", "-c"}, {"igzip", "-d", "-c"}} {
		if _, err := exec.LookPath(child[0]); err != nil {
			b.Logf("%s is not on this machine", child[0])
			continue
		}
		b.Run(child[0]+" child", func(b *testing.B) {
			for b.Loop() {
				cmd := exec.CommandContext(b.Context(), child[0], child[1:]...)
				cmd.Stdin = bytes.NewReader(packed)
				out, err := cmd.StdoutPipe()
				require.NoError(b, err)
				require.NoError(b, cmd.Start())
				drain(b, out)
				require.NoError(b, cmd.Wait())
			}
		})
	}
}

func drain(b *testing.B, r io.Reader) {
	b.Helper()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	require.NoError(b, err)
	b.SetBytes(n)
}

// spanBytes is what SOCI puts between two checkpoints of a zTOC.
// Source: soci-snapshotter soci/soci_index.go@v0.16.1.
const spanBytes = 4 << 20

// BenchmarkSpans asks whether one huge layer is unpacked faster when its spans are inflated on all cores, from checkpoints
// as a zTOC has them, while the digest is computed in order. Each is run with what follows the inflating: nothing, the
// digest, the digest and the writing.
func BenchmarkSpans(b *testing.B) {
	packed := hugeLayer(b)
	checkpoints, size, err := inflate.Checkpoints(bytes.NewReader(packed), spanBytes)
	require.NoError(b, err)
	b.Logf("%d MiB, %d inflated, %d checkpoints, %d cores", len(packed)>>20, size>>20, len(checkpoints), runtime.GOMAXPROCS(0))
	for _, after := range []string{"nothing", "digest", "digest and write"} {
		for name, run := range map[string]func(*testing.B, []byte, []inflate.Checkpoint, int64, func([]byte)){
			"one stream": oneStream, "spans": spans,
		} {
			b.Run(fmt.Sprintf("%s/%s", after, name), func(b *testing.B) {
				for b.Loop() {
					use, sum := consumer(b, after)
					run(b, packed, checkpoints, size, use)
					if after != "nothing" {
						requireSum(b, packed, sum)
					}
					b.SetBytes(size)
				}
			})
		}
	}
}

// consumer does with inflated bytes what comes after inflating them.
func consumer(b *testing.B, after string) (use func([]byte), sum hash.Hash) {
	b.Helper()
	sum = sha256.New()
	out, err := os.Create(filepath.Join(b.TempDir(), "out")) // TMPDIR chooses the file system
	require.NoError(b, err)
	b.Cleanup(func() { _ = out.Close() })
	require.NoError(b, os.Remove(out.Name())) // its room is free again when it is closed
	return func(data []byte) {
		if after != "nothing" {
			sum.Write(data)
		}
		if after == "digest and write" {
			if _, err := out.Write(data); err != nil {
				b.Error(err)
			}
			if at, err := out.Seek(0, io.SeekCurrent); err == nil && at > 256<<20 {
				_, _ = out.Seek(0, io.SeekStart) // the writing counts, not what is kept
				_ = out.Truncate(0)
			}
		}
	}, sum
}

var wantSums = map[int][]byte{}

func requireSum(b *testing.B, packed []byte, got hash.Hash) {
	b.Helper()
	want, known := wantSums[len(packed)]
	if !known {
		b.StopTimer()
		sum := sha256.New()
		r, err := gzip.NewReader(bytes.NewReader(packed))
		require.NoError(b, err)
		_, err = io.Copy(sum, r)
		require.NoError(b, err)
		want = sum.Sum(nil)
		wantSums[len(packed)] = want
		b.StartTimer()
	}
	require.Equal(b, want, got.Sum(nil))
}

// oneStream inflates in one goroutine and consumes in another, as a layer is unpacked.
func oneStream(b *testing.B, packed []byte, _ []inflate.Checkpoint, _ int64, use func([]byte)) {
	b.Helper()
	full, empty := make(chan []byte, 8), make(chan []byte, 8)
	for range cap(empty) {
		empty <- make([]byte, 256<<10)
	}
	go func() {
		defer close(full)
		r := inflate.NewReader(bytes.NewReader(packed))
		for {
			block := (<-empty)[:256<<10]
			n, err := io.ReadFull(r, block)
			full <- block[:n]
			if err != nil {
				return
			}
		}
	}()
	for block := range full {
		use(block)
		empty <- block
	}
}

// spans inflates from all checkpoints, one goroutine a core, and consumes in order.
func spans(b *testing.B, packed []byte, checkpoints []inflate.Checkpoint, size int64, use func([]byte)) {
	b.Helper()
	type span struct {
		data []byte
		err  error
	}
	workers := runtime.GOMAXPROCS(0)
	results := make([]chan span, len(checkpoints))
	for i := range results {
		results[i] = make(chan span, 1)
	}
	buffers := make(chan []byte, workers+2) // taken in the order of spans, so the next in line always has one
	for range cap(buffers) {
		buffers <- nil
	}
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range checkpoints {
			next <- i
		}
	}()
	taken := make(chan struct{}, 1)
	for range workers {
		go func() {
			for {
				taken <- struct{}{}
				i, more := <-next
				var buffer []byte
				if more {
					buffer = <-buffers
				}
				<-taken
				if !more {
					return
				}
				end := size
				if i+1 < len(checkpoints) {
					end = checkpoints[i+1].Out
				}
				at := checkpoints[i]
				if n := int(end - at.Out); cap(buffer) < n {
					buffer = make([]byte, n+n/8)
				}
				buffer = buffer[:end-at.Out]
				r, err := inflate.OpenAt(bytes.NewReader(packed[at.Bit/8:]), at)
				if err == nil {
					_, err = io.ReadFull(r, buffer)
				}
				results[i] <- span{buffer, err}
			}
		}()
	}
	for _, result := range results {
		one := <-result
		require.NoError(b, one.err)
		use(one.data)
		buffers <- one.data
	}
}
