// Command sync writes the generated files of the chart and of kustomize anew, and removes those that are none any more. Run
// it in the module's root.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"headstart.dev/deploy/chart"
)

func main() {
	if err := run("deploy"); err != nil {
		fmt.Fprintln(os.Stderr, "sync:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := chart.Files(os.DirFS(dir))
	if err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if _, wanted := files[filepath.ToSlash(name)]; wanted || !chart.IsGenerated(filepath.ToSlash(name)) {
			return nil
		}
		return os.Remove(path) //nolint:gosec // in a checkout of its own user
	})
	if err != nil {
		return fmt.Errorf("remove old files: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644))
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
