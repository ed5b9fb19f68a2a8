package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// endpoint is an HTTP server that is good or not.
type endpoint struct {
	url    string
	good   atomic.Bool
	server *http.Server
}

func newEndpoint(ctx context.Context) (*endpoint, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	e := &endpoint{url: "http://" + listener.Addr().String() + "/ready"}
	e.server = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !e.good.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = e.server.Serve(listener) }()
	return e, nil
}

func (e *endpoint) set(_ context.Context, truth bool) error {
	e.good.Store(truth)
	return nil
}

func (e *endpoint) close() error { return e.server.Close() }

const driverName = "bench.csi.example"

// csiDriver listens on a driver's two sockets, or not.
type csiDriver struct {
	csi.UnimplementedIdentityServer
	registerapi.UnimplementedRegistrationServer
	root    string
	servers []*grpc.Server
}

// GetPluginInfo implements csi.IdentityServer.
func (d *csiDriver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driverName, VendorVersion: "1"}, nil
}

// Probe implements csi.IdentityServer.
func (d *csiDriver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// GetInfo implements registerapi.RegistrationServer.
func (d *csiDriver) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: driverName}, nil
}

func (d *csiDriver) set(ctx context.Context, truth bool) error {
	if !truth {
		return d.stop()
	}
	for path, register := range map[string]func(*grpc.Server){
		filepath.Join(d.root, "plugins_registry", driverName+"-reg.sock"): func(s *grpc.Server) { registerapi.RegisterRegistrationServer(s, d) },
		filepath.Join(d.root, "plugins", driverName, "csi.sock"):          func(s *grpc.Server) { csi.RegisterIdentityServer(s, d) },
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "unix", path)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		server := grpc.NewServer()
		register(server)
		d.servers = append(d.servers, server)
		go func() { _ = server.Serve(listener) }()
	}
	return nil
}

func (d *csiDriver) stop() error {
	for _, server := range d.servers {
		server.Stop()
	}
	d.servers = nil
	return nil
}
