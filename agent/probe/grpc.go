package probe

import (
	"context"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// GRPC is ready while the health service at Address (host:port or unix:///path) says SERVING of Service.
type GRPC struct {
	Address string
	Service string
}

// Check asks once.
func (p *GRPC) Check(ctx context.Context) Result {
	conn, err := dialGRPC(ctx, p.Address)
	if err != nil {
		return dialFailure(p.Address, err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: p.Service})
	if err != nil {
		return grpcFailure(p.Address, err)
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return notReady(ReasonUnhealthy, "%s says %v", p.Address, answer.GetStatus())
	}
	return ready("%s says SERVING", p.Address)
}

// Watch sees the socket come, if it is one, and follows the server's own health stream for as long as it lasts.
func (p *GRPC) Watch(ctx context.Context, wake func()) error {
	appeared := make(chan struct{}, 1)
	signal := func() {
		wake()
		select {
		case appeared <- struct{}{}:
		default:
		}
	}
	failed := make(chan error, 1)
	if path, ok := strings.CutPrefix(p.Address, "unix://"); ok {
		go func() { failed <- watchDirs(ctx, signal, filepath.Dir(path)) }()
	} else {
		failed <- nil
	}
	for {
		p.follow(ctx, wake)
		// A server that has no Watch, or that is not there, is asked again with the next event or after a while.
		if _, alive := waitOrWake(ctx, maxPending, appeared); !alive {
			return <-failed
		}
	}
}

// follow reads the health stream until it breaks, and wakes with every message of it.
func (p *GRPC) follow(ctx context.Context, wake func()) {
	conn, err := dialGRPC(ctx, p.Address)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: p.Service})
	if err != nil {
		return
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
		wake()
	}
}

// grpcFailure says why a call at an address failed.
func grpcFailure(address string, err error) Result {
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Canceled:
		return notReady(ReasonTimeout, "%s did not answer in time", address)
	case codes.Unimplemented:
		return notReady(ReasonInvalid, "%s has no such service: %s", address, status.Convert(err).Message())
	case codes.NotFound:
		return notReady(ReasonInvalid, "%s does not know the service: %s", address, status.Convert(err).Message())
	case codes.Unavailable:
		return notReady(ReasonUnreachable, "%s: %s", address, status.Convert(err).Message())
	default:
		return notReady(ReasonUnhealthy, "%s: %s", address, status.Convert(err).Message())
	}
}
