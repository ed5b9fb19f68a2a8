package probe

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// File is ready while Path exists, whatever it is.
type File struct {
	Path string
}

// Check looks once.
func (p *File) Check(context.Context) Result {
	_, err := os.Stat(p.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notReady(ReasonNotFound, "%s does not exist", p.Path)
	case err != nil:
		return notReady(ReasonInvalid, "%v", err)
	}
	return ready("%s exists", p.Path)
}

// Watch sees the file come and go.
func (p *File) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, filepath.Dir(p.Path))
}
