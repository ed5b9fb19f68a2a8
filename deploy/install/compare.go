package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// errROFS is what the kernel says of a write to a read-only file system.
const errROFS = syscall.EROFS

// compareBytes is read of each file at a time.
const compareBytes = 1 << 20

// sameContent says whether the host's file is executable and holds what in holds.
func sameContent(host *os.Root, name string, in *os.File) (bool, error) {
	have, err := host.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = have.Close() }()
	haveInfo, err := have.Stat()
	if err != nil {
		return false, fmt.Errorf("look at installed binary: %w", err)
	}
	wantInfo, err := in.Stat()
	if err != nil {
		return false, fmt.Errorf("look at the agent's own binary: %w", err)
	}
	if haveInfo.Size() != wantInfo.Size() || haveInfo.Mode().Perm() != 0o755 {
		return false, nil
	}
	a, b := make([]byte, compareBytes), make([]byte, compareBytes)
	for {
		n, errA := io.ReadFull(have, a)
		m, errB := io.ReadFull(in, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return ended(errA) && ended(errB), errors.Join(unlessEnd(errA), unlessEnd(errB))
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func unlessEnd(err error) error {
	if ended(err) {
		return nil
	}
	return err
}
