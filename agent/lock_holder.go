package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how an agent that stands by looks after the one that works. A process that holds the lock and is stopped
// (SIGSTOP, a frozen cgroup) or hangs still has its socket, and answers nothing: it is asked every period, has the timeout
// to answer, and loses the lock after several failures in a row.
type patience struct {
	period, timeout time.Duration
	failures        int
}

// defaultPatience is longer than a machine that boots keeps a process from running.
var defaultPatience = patience{period: time.Second, timeout: 5 * time.Second, failures: 3}

const (
	socketSuffix = ".sock"
	// maxSocketName leaves room in the 107 bytes of a socket's path.
	maxSocketName = 64
)

// socketName is the name of the socket of who holds a lock.
func socketName(lock string) string {
	if len(lock) > maxSocketName {
		sum := sha256.Sum256([]byte(lock))
		lock = hex.EncodeToString(sum[:16])
	}
	return lock + socketSuffix
}

// ownSocket is the name of the socket of this agent, once it works.
func (a *Agent) ownSocket() string {
	if a.config.NodeName == "" {
		return socketName(machineLock)
	}
	return socketName(a.config.NodeName)
}

// inDir calls use with a path of a file in dir that is short enough for a socket, however deep dir is.
func inDir(dir, name string, use func(path string) error) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name))
}

// dialSocket connects to a socket of the state folder.
func dialSocket(ctx context.Context, dir, name string) (conn net.Conn, err error) {
	err = inDir(dir, name, func(path string) error {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "unix", path)
		return err
	})
	return conn, err
}

// holderWatch asks who holds a lock whether it lives.
type holderWatch struct {
	dir      string
	lock     lockFile
	patience patience

	hung    atomic.Bool
	seen    os.FileInfo // the lock's file that was there when the holder was asked; read after hung
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// hangs says whether the holder has not answered for long. The first call begins to ask.
func (w *holderWatch) hangs(ctx context.Context) bool {
	if w.hung.Load() {
		w.stop()
		w.hung.Store(false)
		return true
	}
	if w.cancel == nil {
		ctx, w.cancel = context.WithCancel(ctx)
		w.running.Go(func() { w.ask(ctx) })
	}
	return false
}

func (w *holderWatch) stop() {
	if w.cancel != nil {
		w.cancel()
		w.running.Wait()
		w.cancel = nil
	}
}

// ask ends when the holder of one and the same lock has failed to answer several times in a row.
func (w *holderWatch) ask(ctx context.Context) {
	failures := 0
	for {
		timer := time.NewTimer(w.patience.period)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		at, err := os.Stat(filepath.Join(w.dir, w.lock.name+lockSuffix))
		if err != nil || w.seen == nil || !os.SameFile(at, w.seen) {
			w.seen, failures = at, 0
		}
		if err != nil || !w.silent(ctx) {
			failures = 0
			continue
		}
		if failures++; failures >= w.patience.failures {
			w.hung.Store(true)
			return
		}
	}
}

// silent says whether somebody has a socket and does not answer on it. Nobody there is no sign of a holder that hangs:
// one that has just begun has none yet.
func (w *holderWatch) silent(ctx context.Context) bool {
	names := []string{socketName(w.lock.name)}
	if w.lock.name == machineLock && w.lock.how == unix.LOCK_EX {
		// Whoever has the name of a Node holds a share of it.
		files, _ := filepath.Glob(filepath.Join(w.dir, "*"+socketSuffix))
		for _, file := range files {
			names = append(names, filepath.Base(file))
		}
	}
	for _, name := range names {
		if silentSocket(ctx, w.dir, name, w.patience.timeout) {
			return true
		}
	}
	return false
}

func silentSocket(ctx context.Context, dir, name string, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/healthz", nil)
	if err != nil {
		return false
	}
	client := &http.Client{Transport: socketTransport(dir, name)}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		// The kernel accepts for a stopped process until its queue is full.
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.EAGAIN)
	}
	return response.Body.Close() != nil
}

// socketTransport reaches an HTTP server on a socket of the state folder.
func socketTransport(dir, name string) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialSocket(ctx, dir, name)
		},
	}
}
