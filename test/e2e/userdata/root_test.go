// Package userdata_test boots the rendered AL2023 userData in a Debian root under a real systemd, containerd and kubelet.
// Stand-ins are nodeadm's own files only: its two units, and the order in which AL2023 runs them around cloud-init.
package userdata_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/disk"
)

const (
	suite  = "bookworm"
	mirror = "http://deb.debian.org/debian"
	// packages of the root beside systemd: what the AL2023 AMI has of what the userData's shell parts use.
	packages = "systemd,systemd-sysv,dbus,curl,ca-certificates,jq,runc"
)

// debian returns a Debian root, made once and kept in the user's cache.
func debian(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"debootstrap", "systemd-nspawn"} {
		if _, err := exec.LookPath(tool); err != nil {
			testenv.Skip(t, tool+" is missing: apt-get install debootstrap systemd-container")
		}
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(suite + packages))
	dir := filepath.Join(cache, "headstart", "debian", suite+"-"+hex.EncodeToString(sum[:])[:12])
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	temp, err := os.MkdirTemp(filepath.Dir(dir), "new-") //nolint:usetesting // it is renamed, so it lies beside its target
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(temp) }()
	cmd := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase", "--include="+packages, suite, temp, mirror)
	out, err := cmd.CombinedOutput()
	if err != nil {
		testenv.Skip(t, "debootstrap: "+err.Error()+": "+tail(string(out)))
	}
	require.NoError(t, os.Chmod(temp, 0o755))
	require.NoError(t, os.Rename(temp, dir))
	return dir
}

func tail(text string) string {
	const most = 400
	return strings.TrimSpace(text[max(0, len(text)-most):])
}

// overlay mounts a writable copy of lower for this test.
func overlay(t *testing.T, lower string) string {
	t.Helper()
	base := t.TempDir()
	paths := map[string]string{}
	for _, name := range []string{"upper", "work", "root"} {
		paths[name] = filepath.Join(base, name)
		require.NoError(t, os.Mkdir(paths[name], 0o755))
	}
	options := "lowerdir=" + lower + ",upperdir=" + paths["upper"] + ",workdir=" + paths["work"]
	require.NoError(t, unix.Mount("overlay", paths["root"], "overlay", 0, options))
	t.Cleanup(func() {
		if err := unix.Unmount(paths["root"], 0); err != nil {
			t.Errorf("unmount the root: %v", err)
		}
	})
	return paths["root"]
}

// dataDisk is the node's fast local disk, empty: the agent leaves a share of it free, and this machine's own may have less.
func dataDisk(t *testing.T) string {
	t.Helper()
	file, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	require.NoError(t, disk.Mount(t.Context(), disk.Default(), file, dir))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

// write puts a file into the root.
func write(t *testing.T, root, path, content string, mode os.FileMode) {
	t.Helper()
	file := filepath.Join(root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	require.NoError(t, os.Chmod(file, mode))
}

// copyInto copies a program into the root: the root is an overlay, links do not cross it.
func copyInto(ctx context.Context, t *testing.T, root, from, to string) {
	t.Helper()
	out, err := exec.CommandContext(ctx, "install", "-D", "-m", "0755", from, filepath.Join(root, to)).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
