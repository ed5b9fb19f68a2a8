package layer

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// machineError is an error that says nothing about the layer.
type machineError struct{ error }

func (e machineError) Unwrap() error { return e.error }

// machineErrnos are failures of the node: another attempt, or another time, may go well.
var machineErrnos = []syscall.Errno{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EROFS, syscall.EPERM, syscall.EACCES,
}

// foreign reports whether an error may come from what the layer holds: a tar that makes no sense, a path that cannot be
// made, a bound that is exceeded.
func foreign(err error) bool {
	if _, ok := errors.AsType[machineError](err); ok {
		return false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fs.ErrClosed) {
		return false
	}
	for _, errno := range machineErrnos {
		if errors.Is(err, errno) {
			return false
		}
	}
	return true
}
