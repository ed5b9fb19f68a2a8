package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
)

// Whiteouts hide files of the layers below.
// Source: image-spec layer.md, whiteouts.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// whiteout hides what a whiteout names. In a base layer nothing is below: there it removes what this layer itself has made.
func (x *extractor) whiteout(header *tar.Header, in *folder, base string) error {
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if base != whiteoutOpaque && (hidden == "" || hidden == "." || hidden == "..") {
		return fmt.Errorf("invalid whiteout name: %q", base)
	}
	if !x.base {
		if _, err := archive.OverlayConvertWhiteout(header, filepath.Join(x.root, in.child(base))); err != nil {
			return fmt.Errorf("make a whiteout: %w", err)
		}
		return nil
	}
	if base != whiteoutOpaque {
		return x.remove(in.child(hidden))
	}
	return x.clearImplied(in.rel)
}

// clearImplied is what containerd makes of an opaque directory in a base layer: what no entry has made goes, and that is
// the directories which entries only implied, with all that they hold.
func (x *extractor) clearImplied(dir string) error {
	if _, again := x.opaque[dir]; again {
		return nil
	}
	x.opaque[dir] = struct{}{}
	x.remembered += int64(len(dir)) + nameWeight
	top := filepath.Join(x.root, dir)
	x.removed = true
	x.forget()
	err := filepath.Walk(top, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		}
		rel, err := filepath.Rel(x.root, path)
		if err != nil {
			return err
		}
		if _, made := x.seen[x.hash(rel)]; made || path == top {
			return nil
		}
		if err := os.RemoveAll(path); err != nil { //nolint:gosec // nobody else works in the layer
			return err
		}
		if info.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("clear an opaque directory: %w", err)
	}
	return nil
}
