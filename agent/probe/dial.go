package probe

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// dial connects to "host:port" or "unix:///path". A probe dials anew for each look: a kept connection would answer for
// the server that was there before, and its back-off would hide the one that has just come.
func dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return dialer.DialContext(ctx, "unix", path)
	}
	return dialer.DialContext(ctx, "tcp", address)
}

// dialGRPC is dial for a gRPC server. The caller closes the connection.
func dialGRPC(ctx context.Context, address string) (*grpc.ClientConn, error) {
	raw, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	// The one connection is handed to gRPC once: were it to reconnect, the look would outlive its deadline.
	first := make(chan net.Conn, 1)
	first <- raw
	// One that no call has taken goes with the look.
	context.AfterFunc(ctx, func() {
		select {
		case c := <-first:
			_ = c.Close()
		default:
		}
	})
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return nil, errors.New("connection was lost")
			}
		}))
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// dialFailure says why nobody could be reached at an address.
func dialFailure(address string, err error) Result {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notReady(ReasonNotFound, "%s does not exist", address)
	case errors.Is(err, syscall.ECONNREFUSED):
		return notReady(ReasonUnreachable, "nobody listens on %s", address)
	case isTimeout(err):
		return notReady(ReasonTimeout, "%s did not answer in time", address)
	}
	return notReady(ReasonUnreachable, "%s: %v", address, err)
}

func isTimeout(err error) bool {
	netErr, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || ok && netErr.Timeout()
}
