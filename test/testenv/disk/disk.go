// Package disk makes fresh file systems for the nodes of the testbed, in sparse files on loop devices.
//
// Beside an old root file system a fresh one is an order of magnitude cheaper for each file that is made, and that is most
// of what unpacking an image costs: without one, a testbed measures its own machine. Start from Mount.
package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
)

// The file systems, as mkfs and mount call them. XFS is what the data volume of an AL2023 node has.
const (
	XFS  = "xfs"
	Ext4 = "ext4"
)

// Bytes is the size that a disk shows. The file behind it takes what is written.
const Bytes = 64 << 30

// Default is XFS, or ext4 where mkfs.xfs cannot be had.
func Default() string {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		return Ext4
	}
	return XFS
}

// Mount makes a file system of that kind in a new file and mounts it at dir, which must exist. The loop device is freed by
// the unmount, however that comes; the file is the caller's to remove.
func Mount(ctx context.Context, kind, file, dir string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if err := os.Truncate(file, Bytes); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	mkfs := map[string][]string{
		XFS:  {"mkfs.xfs", "-q", "-K", file},
		Ext4: {"mkfs.ext4", "-q", "-F", "-E", "nodiscard", file},
	}[kind]
	if mkfs == nil {
		return fmt.Errorf("make a disk: no file system %q", kind)
	}
	if err := run(ctx, mkfs...); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if err := run(ctx, "mount", "-t", kind, "-o", "loop", file, dir); err != nil {
		return fmt.Errorf("mount a disk: %w", err)
	}
	return nil
}

func run(ctx context.Context, command ...string) error {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, bytes.TrimSpace(out))
	}
	return nil
}
