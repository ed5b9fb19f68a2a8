package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/time/rate"
)

// server is a registry of files, as light as can be: what it costs is not the contenders' to pay. Every request waits for the
// latency, and every response is limited by itself, as a registry limits one connection.
type server struct {
	dir     string
	latency time.Duration
	rate    atomic.Int64 // bytes a second of one response, 0 is no limit
	sent    atomic.Int64 // bytes of blobs
	front   *http.Server
	host    string
}

func newServer(ctx context.Context, dir string, latency time.Duration) (*server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve images: %w", err)
	}
	s := &server{dir: dir, latency: latency, host: listener.Addr().String()}
	s.front = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.front.Serve(listener) }()
	return s, nil
}

// add stores an image and returns its reference.
func (s *server) add(name string, img v1.Image) (string, error) {
	manifest, err := img.RawManifest()
	if err != nil {
		return "", err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return "", err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return "", err
	}
	dgst, err := img.Digest()
	if err != nil {
		return "", err
	}
	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	errs := []error{
		os.MkdirAll(filepath.Join(s.dir, name), 0o755),
		os.WriteFile(filepath.Join(s.dir, name, "v1"), manifest, 0o600),
		os.WriteFile(filepath.Join(s.dir, dgst.String()), manifest, 0o600),
		os.WriteFile(filepath.Join(s.dir, configName.String()), config, 0o600),
	}
	for _, l := range layers {
		errs = append(errs, s.addLayer(l))
	}
	return s.host + "/" + name + ":v1", errors.Join(errs...)
}

func (s *server) addLayer(l v1.Layer) error {
	dgst, err := l.Digest()
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, dgst.String())
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	in, err := l.Compressed()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// ServeHTTP serves /v2/<name>/manifests/<reference> and /v2/<name>/blobs/<digest>.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(s.latency):
	case <-r.Context().Done():
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	name, object, isBlob := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	path := filepath.Join(s.dir, filepath.Base(object))
	if !isBlob {
		name, object, _ = strings.Cut(name, "/manifests/")
		path = filepath.Join(s.dir, filepath.Base(object))
		if !strings.HasPrefix(object, "sha256:") {
			path = filepath.Join(s.dir, filepath.Clean("/"+name), "v1")
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	if strings.HasPrefix(object, "sha256:") {
		w.Header().Set("Docker-Content-Digest", object)
	} else if data, err := os.ReadFile(path); err == nil {
		w.Header().Set("Docker-Content-Digest", digestOf(data))
	}
	f, err := os.Open(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer func() { _ = f.Close() }()
	http.ServeContent(s.limited(r.Context(), w, isBlob), r, "", time.Time{}, f)
}

// limited wraps a response so that it is counted and, where a rate is set, no faster than that.
func (s *server) limited(ctx context.Context, w http.ResponseWriter, isBlob bool) http.ResponseWriter {
	if !isBlob {
		return w
	}
	l := &limitedWriter{ResponseWriter: w, ctx: ctx, server: s}
	if bytes := s.rate.Load(); bytes > 0 {
		l.limiter = rate.NewLimiter(rate.Limit(bytes), 256<<10)
	}
	return l
}

type limitedWriter struct {
	http.ResponseWriter
	ctx     context.Context //nolint:containedctx // that of the request which it answers
	server  *server
	limiter *rate.Limiter
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.limiter != nil {
		if err := l.limiter.WaitN(l.ctx, len(p)); err != nil {
			return 0, err
		}
	}
	n, err := l.ResponseWriter.Write(p)
	l.server.sent.Add(int64(n))
	return n, err
}

// ReadFrom keeps sendfile where there is no limit, and copies in blocks where there is one.
func (l *limitedWriter) ReadFrom(r io.Reader) (int64, error) {
	if from, ok := l.ResponseWriter.(io.ReaderFrom); ok && l.limiter == nil {
		n, err := from.ReadFrom(r)
		l.server.sent.Add(n)
		return n, err
	}
	return io.CopyBuffer(struct{ io.Writer }{l}, r, make([]byte, 128<<10))
}
