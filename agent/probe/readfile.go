package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// readRegular reads a file that somebody else may have put there: a FIFO does not block it, and a file of more than max
// bytes is refused.
func readRegular(path string, maxBytes int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: %w", path, errNotRegular)
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > maxBytes {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, maxBytes)
	}
	return raw, nil
}

var errNotRegular = errors.New("not a regular file")
