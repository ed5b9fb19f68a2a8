package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Pause returns the path of the static program that holds a pod sandbox open, building it when its source has changed.
func Pause(ctx context.Context) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	source, err := os.ReadFile(filepath.Join(root, "test", "testenv", "internal", "pause", "main.go"))
	if err != nil {
		return "", fmt.Errorf("read the pause program: %w", err)
	}
	sum := sha256.Sum256(append(source, runtime.Version()...))
	dir := filepath.Join(cache, "headstart", "pause", hex.EncodeToString(sum[:8]))
	path := filepath.Join(dir, "pause")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // a cache of public programs
		return "", fmt.Errorf("make the folder of the pause program: %w", err)
	}
	temp, err := os.CreateTemp(dir, ".build-")
	if err != nil {
		return "", fmt.Errorf("build the pause program: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", temp.Name(), "./test/testenv/internal/pause")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build the pause program: %w: %s", err, output), temp.Close(), os.Remove(temp.Name()))
	}
	if err := errors.Join(temp.Close(), os.Rename(temp.Name(), path)); err != nil {
		return "", fmt.Errorf("keep the pause program: %w", err)
	}
	return path, nil
}
