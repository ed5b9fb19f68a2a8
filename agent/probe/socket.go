package probe

import (
	"context"
	"path/filepath"
)

// TCP is ready while Address (host:port) accepts connections.
type TCP struct {
	Address string
}

// Check connects once.
func (p *TCP) Check(ctx context.Context) Result {
	conn, err := dial(ctx, p.Address)
	if err != nil {
		return dialFailure(p.Address, err)
	}
	_ = conn.Close()
	return ready("%s accepts connections", p.Address)
}

// Unix is ready while the unix socket at Path accepts connections.
type Unix struct {
	Path string
}

// Check connects once.
func (p *Unix) Check(ctx context.Context) Result {
	conn, err := dial(ctx, "unix://"+p.Path)
	if err != nil {
		return dialFailure(p.Path, err)
	}
	_ = conn.Close()
	return ready("%s accepts connections", p.Path)
}

// Watch sees the socket come and go.
func (p *Unix) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, filepath.Dir(p.Path))
}
