// Package process runs one server of the testbed: it starts it, waits until its health check passes, stops it with a
// time-out, and keeps its log.
//
// A server never outlives the program that started it: it has a process group of its own, so that Ctrl-C on the test does
// not race with an orderly stop, and the kernel kills it when its parent dies. All methods are safe for concurrent use.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// healthPeriod is how often a starting server is asked whether it is ready.
	healthPeriod = 25 * time.Millisecond
	// healthTimeout bounds one health check, so that a hanging server is asked again.
	healthTimeout = 2 * time.Second
	// defaultStartTimeout is generous: kube-apiserver takes 3 s here, and six times that beside a compiler on two cores.
	defaultStartTimeout = 90 * time.Second
	defaultStopTimeout  = 10 * time.Second
)

// ErrExited says that the server ended before it was ready.
var ErrExited = errors.New("exited before it was ready")

// Config describes one server. Name, Path and LogPath are required.
type Config struct {
	// Name is how errors and logs call the server.
	Name string
	Path string
	Args []string
	// Env is appended to the environment of this program; the last value of a key wins.
	Env []string
	// LogPath receives stdout and stderr; a second start appends.
	LogPath string
	// NetworkNamespace is the name of a network namespace under /run/netns to run in; empty means this program's own.
	NetworkNamespace string
	// Ready returns nil when the server serves. Nil means ready at once.
	Ready func(ctx context.Context) error
	// StartTimeout bounds the wait for Ready, StopTimeout the wait for an orderly end. 0 means 90 s and 10 s.
	StartTimeout, StopTimeout time.Duration
}

// Process is one running (or ended) server.
type Process struct {
	cfg  Config
	cmd  *exec.Cmd
	done chan struct{}

	stopping sync.Mutex
	exitErr  error // valid when done is closed
}

// Start starts the server and returns when it is ready. ctx bounds only the start: the server runs until Stop or Kill.
// On error nothing of the server is left, and the error ends with the tail of its log.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = defaultStopTimeout
	}
	log, err := os.OpenFile(cfg.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", cfg.Name, err)
	}
	defer func() { _ = log.Close() }()

	cmd := exec.CommandContext(context.WithoutCancel(ctx), cfg.Path, cfg.Args...)
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{cfg: cfg, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	if err := p.waitReady(ctx); err != nil {
		tail := p.LogTail(4 << 10)
		return nil, errors.Join(fmt.Errorf("start %s: %w; the end of its log:\n%s", cfg.Name, err, tail), p.Kill())
	}
	return p, nil
}

// run starts the server and waits for it on one locked thread: Pdeathsig fires when the parent *thread* ends, and the
// network namespace that a child inherits is that of the thread.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	if p.cfg.NetworkNamespace == "" {
		defer runtime.UnlockOSThread()
	} else if err := enter(p.cfg.NetworkNamespace); err != nil {
		started <- err // the thread stays locked: the runtime ends it together with the goroutine
		return
	}
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	p.exitErr = p.cmd.Wait()
	close(p.done)
}

// enter moves the current thread, which must be locked and is not used for anything else, into the named namespace.
func enter(name string) error {
	handle, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %q: %w", name, err)
	}
	defer func() { _ = handle.Close() }()
	if err := netns.Set(handle); err != nil {
		return fmt.Errorf("enter network namespace %q: %w", name, err)
	}
	return nil
}

func (p *Process) waitReady(ctx context.Context) error {
	if p.cfg.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	tick := time.NewTicker(healthPeriod)
	defer tick.Stop()
	last := errors.New("never asked")
	for {
		select {
		case <-p.done:
			return fmt.Errorf("%w: %w", ErrExited, exitError(p.exitErr))
		case <-ctx.Done():
			return fmt.Errorf("wait until it is ready: %w; last answer: %w", ctx.Err(), last)
		case <-tick.C:
		}
		checkCtx, cancel := context.WithTimeout(ctx, healthTimeout)
		err := p.cfg.Ready(checkCtx)
		cancel()
		if err == nil {
			return nil
		}
		last = err
	}
}

// exitError keeps the wrap of a clean exit from losing its cause.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Stop asks the server to end, waits for the stop time-out, and kills what is left of its process group. It is safe to
// call again. A server that had to be killed is an error.
func (p *Process) Stop() error {
	p.stopping.Lock()
	defer p.stopping.Unlock()
	if p.ended() {
		return nil
	}
	// A frozen server sees its SIGTERM only when it goes on.
	if err := errors.Join(p.Signal(syscall.SIGTERM), p.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	timeout := time.NewTimer(p.cfg.StopTimeout)
	defer timeout.Stop()
	select {
	case <-p.done:
		return nil
	case <-timeout.C:
		return errors.Join(fmt.Errorf("stop %s: still running %s after SIGTERM", p.cfg.Name, p.cfg.StopTimeout), p.Kill())
	}
}

// Kill ends the server's process group with SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if p.ended() {
		return nil
	}
	err := unix.Kill(-p.PID(), unix.SIGKILL)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s: %w", p.cfg.Name, err)
	}
	<-p.done
	return nil
}

// Signal sends a signal to the server itself, not to its group. An ended server is no error.
func (p *Process) Signal(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.cfg.Name, err)
	}
	return nil
}

// PID is the process ID, also after the end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Name is the name that Config gave.
func (p *Process) Name() string { return p.cfg.Name }

// Done is closed when the server has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// LogTail returns at most the last n bytes of the log, starting at a line.
func (p *Process) LogTail(n int) string {
	content, err := os.ReadFile(p.cfg.LogPath)
	if err != nil {
		return err.Error()
	}
	if len(content) <= n {
		return string(content)
	}
	content = content[len(content)-n:]
	if _, rest, ok := bytes.Cut(content, []byte("\n")); ok {
		content = rest
	}
	return string(content)
}
