package probe

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watchDirs calls wake whenever something changes in one of the folders, until ctx ends. A folder that does not exist
// yet is waited for: its nearest existing ancestor is watched in its place. A folder that is removed or replaced is
// waited for again.
func watchDirs(ctx context.Context, wake func(), dirs ...string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch folders: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	if err := addAll(watcher, dirs); err != nil {
		return err
	}
	wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-watcher.Events:
			if !open {
				return errors.New("watch folders: the watch was closed")
			}
			if err := addAll(watcher, dirs); err != nil {
				return err
			}
			wake()
		case err, open := <-watcher.Errors:
			if !open {
				return errors.New("watch folders: the watch was closed")
			}
			// An overflow means that events were lost, not that the watch has ended: look again.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch folders: %w", err)
			}
			wake()
		}
	}
}

// addAll watches each folder, or the nearest ancestor that exists, and nothing else. It runs again after every event,
// because the kernel drops a watch silently with the inode that it was on.
func addAll(watcher *fsnotify.Watcher, dirs []string) error {
	wanted := map[string]bool{}
	for _, dir := range dirs {
		at, err := addNearest(watcher, filepath.Clean(dir))
		if err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		wanted[at] = true
	}
	for _, at := range watcher.WatchList() {
		if !wanted[at] {
			// It may have gone by itself, with the folder.
			_ = watcher.Remove(at)
		}
	}
	return nil
}

// addNearest walks up to the nearest ancestor that exists, and down again as far as folders have appeared meanwhile: one
// that was made before its parent was watched sends no event.
func addNearest(watcher *fsnotify.Watcher, dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		err := watcher.Add(at)
		if err == nil {
			if at == dir || watcher.Add(below(at, dir)) != nil {
				return at, nil //nolint:nilerr // what is below is still not there, which is the usual case
			}
			return addNearest(watcher, dir)
		}
		if at == filepath.Dir(at) {
			return "", err
		}
	}
}

// below is the next path element below at on the way to dir.
func below(at, dir string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(dir, at), "/")
	first, _, _ := strings.Cut(rest, "/")
	return filepath.Join(at, first)
}
