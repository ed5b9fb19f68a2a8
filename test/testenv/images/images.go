package images

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"headstart.dev/test/testenv/internal/binaries"
)

// Where images have the program that they run. The sandbox image has it elsewhere, so that it shares no layer with others:
// every node has that layer, and a test that counts bytes would miss them.
const (
	programPath = "bin/wait"
	pausePath   = "pause"
)

// Spec describes an image: its layers, lowest first, above one that holds the program.
type Spec struct {
	Layers []Layer
	// Labels go into the image's configuration; they make two images of the same layers differ.
	Labels map[string]string
}

// Bytes is the size of the image's files, before compression and without the program.
func (s Spec) Bytes() int64 {
	var sum int64
	for _, layer := range s.Layers {
		sum += layer.Bytes
	}
	return sum
}

// Pause is the image of pod sandboxes: the program alone.
func Pause(ctx context.Context) (v1.Image, error) { return build(ctx, Spec{}, pausePath) }

// Build makes an image. Layers that the cache does not hold are made on all cores; a gigabyte takes some 10 s.
func Build(ctx context.Context, spec Spec) (v1.Image, error) { return build(ctx, spec, programPath) }

func build(ctx context.Context, spec Spec, entrypoint string) (v1.Image, error) {
	program, err := programLayer(ctx, entrypoint)
	if err != nil {
		return nil, err
	}
	blobs := make([]*blob, len(spec.Layers))
	corpus := sync.OnceValues(func() ([]file, error) { return listCorpus(ctx) })
	err = forEach(len(spec.Layers), func(i int) (err error) {
		layer := spec.Layers[i]
		blobs[i], err = cached(ctx, layer, layer.Compression, func() ([]entry, error) {
			files, err := corpus()
			return layer.cut(files), err
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	for _, b := range append([]*blob{program}, blobs...) {
		layer, err := b.asLayer()
		if err != nil {
			return nil, fmt.Errorf("describe a layer: %w", err)
		}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: b.MimeType}); err != nil {
			return nil, fmt.Errorf("add a layer: %w", err)
		}
	}
	return configure(image, spec, entrypoint)
}

func configure(image v1.Image, spec Spec, entrypoint string) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint = []string{"/" + entrypoint}
	config.Config.Labels = spec.Labels
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, fmt.Errorf("write the image's configuration: %w", err)
	}
	return image, nil
}

func programLayer(ctx context.Context, entrypoint string) (*blob, error) {
	program, err := binaries.Pause(ctx)
	if err != nil {
		return nil, err
	}
	return cached(ctx, []string{program, entrypoint}, Gzip, func() ([]entry, error) {
		info, err := os.Stat(program)
		if err != nil {
			return nil, fmt.Errorf("find the program of images: %w", err)
		}
		return []entry{{name: entrypoint, size: info.Size(), mode: 0o755, open: opener(program)}}, nil
	})
}

// forEach calls work for 0 to n-1 on all cores and returns the first error.
func forEach(n int, work func(int) error) error {
	var (
		group sync.WaitGroup
		once  sync.Once
		first error
	)
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := work(i); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	group.Wait()
	return first
}
