// Package workload makes container images of realistic shape from the real files of this machine: Go's sources and
// tools, the module cache, and the system's libraries. Random bytes would be no image: they do not compress, and
// inflating is half of a pull. Start from Make.
package workload

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
)

// Shape says how large the layers of an image are, uncompressed, in bytes; the first is the base.
type Shape struct {
	Name   string
	Layers []int64
	// Skip leaves out so many bytes of files before the first layer, so that shapes differ in content.
	Skip int64
	// Base is how many layers from the front are the same for all shapes with the same BaseOf.
	SharedBase int
}

const mib = 1 << 20

// WebApp is a web application: 8 layers, about 400 MiB compressed.
func WebApp() Shape {
	return Shape{Name: "webapp", Layers: []int64{80 * mib, 60 * mib, 250 * mib, 120 * mib, 200 * mib, 90 * mib, 150 * mib, 30 * mib}}
}

// MachineLearning has one layer of 2 GiB and 15 others.
func MachineLearning() Shape {
	layers := []int64{80 * mib, 60 * mib, 20 * mib, 2 << 30}
	for i := range 12 {
		layers = append(layers, int64(1+i%4*12)*mib)
	}
	return Shape{Name: "ml", Layers: layers}
}

// Small is the n-th of many small images that share two base layers.
func Small(n int) Shape {
	return Shape{Name: fmt.Sprintf("small-%d", n), Layers: []int64{30 * mib, 12 * mib, 4 * mib, 1 * mib}, SharedBase: 2, Skip: int64(200+n*8) * mib}
}

// Roots are where the files come from.
func Roots(goRoot, modCache string) []string {
	return []string{goRoot, modCache, "/usr/lib", "/usr/share"}
}

// Make builds an image and pushes it to host unless it is there. Files come from roots in the order of their names; they
// are repeated when there are too few.
func Make(shape Shape, roots []string, host, scratch string) (string, error) {
	ref := fmt.Sprintf("%s/bench/%s:v1", host, shape.Name)
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("name image %s: %w", shape.Name, err)
	}
	if _, err := remote.Head(tag); err == nil {
		return ref, nil
	}
	source, err := newSource(roots)
	if err != nil {
		return "", fmt.Errorf("collect files: %w", err)
	}
	img := v1.Image(empty.Image)
	for i, size := range shape.Layers {
		if i == shape.SharedBase {
			source.skip(shape.Skip)
		}
		layer, err := source.layer(i, size, scratch)
		if err != nil {
			return "", fmt.Errorf("make layer %d of %s: %w", i, shape.Name, err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return "", fmt.Errorf("append layer %d of %s: %w", i, shape.Name, err)
		}
	}
	if err := remote.Write(tag, img); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return ref, nil
}

// source hands out files one after the other.
type source struct {
	files []file
	next  int
}

type file struct {
	path string
	info fs.FileInfo
}

func newSource(roots []string) (*source, error) {
	s := &source{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
				return nil
			case err != nil:
				return err
			case strings.Contains(path, "/cache/"):
				return nil // the module cache's own archives are compressed already
			case d.Type().IsRegular() || d.Type()&fs.ModeSymlink != 0 || d.IsDir():
				info, err := d.Info()
				if err == nil {
					s.files = append(s.files, file{path: path, info: info})
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(s.files) == 0 {
		return nil, fmt.Errorf("no files under %s", strings.Join(roots, ", "))
	}
	return s, nil
}

func (s *source) skip(bytes int64) {
	for bytes > 0 {
		bytes -= s.files[s.next%len(s.files)].info.Size()
		s.next++
	}
}

// layer writes a gzipped tar of about the given size. Files lie under a folder of the layer's number, so that no layer
// hides another's.
func (s *source) layer(number int, bytes int64, scratch string) (v1.Layer, error) {
	out, err := os.CreateTemp(scratch, "layer-*.tar.gz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	zip, err := gzip.NewWriterLevel(out, gzip.DefaultCompression)
	if err != nil {
		return nil, err
	}
	tw := tar.NewWriter(zip)
	var written int64
	var dirs []string
	for written < bytes {
		f := s.files[s.next%len(s.files)]
		round := s.next / len(s.files)
		s.next++
		n, err := add(tw, f, fmt.Sprintf("layer%d/round%d", number, round), &dirs)
		if err != nil {
			return nil, err
		}
		written += n
	}
	if err := errors.Join(tw.Close(), zip.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(out.Name())
}

// add writes one file with the directories above it, each once a layer.
func add(tw *tar.Writer, f file, under string, dirs *[]string) (int64, error) {
	target := filepath.Join(under, f.path)
	for _, dir := range parents(target) {
		if !slices.Contains(*dirs, dir) {
			if len(*dirs) > 64 {
				*dirs = (*dirs)[32:] // a directory entry twice is what real layers have as well
			}
			*dirs = append(*dirs, dir)
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: f.info.ModTime()}); err != nil {
				return 0, err
			}
		}
	}
	if f.info.IsDir() {
		return 0, nil
	}
	link := ""
	if f.info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(f.path); err != nil {
			return 0, nil //nolint:nilerr // gone meanwhile: any other file does as well
		}
	}
	header, err := tar.FileInfoHeader(f.info, link)
	if err != nil {
		return 0, err
	}
	header.Name, header.Uname, header.Gname = target, "", ""
	if link != "" || f.info.Size() == 0 {
		return 512, tw.WriteHeader(header)
	}
	in, err := os.Open(f.path)
	if err != nil {
		return 0, nil //nolint:nilerr // gone meanwhile: any other file does as well
	}
	defer func() { _ = in.Close() }()
	if err := tw.WriteHeader(header); err != nil {
		return 0, err
	}
	return io.CopyN(tw, in, header.Size)
}

func parents(path string) []string {
	var all []string
	for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
		all = append(all, dir)
	}
	slices.Reverse(all)
	return all
}
