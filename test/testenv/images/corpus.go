package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// file is one file of the corpus.
type file struct {
	path string // absolute
	name string // below its root, as it appears in a layer
	size int64
}

// listCorpus returns the files of the corpus in a fixed order: the Go tree, the built servers, the module cache.
func listCorpus(ctx context.Context) ([]file, error) {
	output, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("ask go for its folders: %w", err)
	}
	roots := strings.Fields(string(output))
	if len(roots) != 2 {
		return nil, fmt.Errorf("ask go for its folders: got %q", output)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the user's cache folder: %w", err)
	}
	var files []file
	for _, root := range []string{roots[0], filepath.Join(cache, "headstart", "tools"), roots[1]} {
		more, err := listFiles(root)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	if len(files) == 0 {
		return nil, errors.New("list files for images: none found")
	}
	return files, nil
}

// listFiles returns the regular files below root in lexical order. A root that is not there has none; neither do the
// module cache's own archives, which are compressed already.
func listFiles(root string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && (path == filepath.Join(root, "cache") || strings.HasPrefix(entry.Name(), ".build-")):
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		files = append(files, file{path: path, name: strings.TrimPrefix(path, root+"/"), size: info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list files for images below %q: %w", root, err)
	}
	return files, nil
}
