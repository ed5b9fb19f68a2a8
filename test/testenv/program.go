package testenv

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"headstart.dev/test/testenv/internal/process"
	"headstart.dev/test/testenv/internal/workspace"
)

// ProgramConfig describes a program to run beside the servers, such as the agent.
type ProgramConfig struct {
	// Path of the program.
	Path string
	Args []string
	// Env is appended to this program's own environment.
	Env []string
	// Files are written into the program's folder before the first start, by name; Args and Env may name them as "{dir}/NAME".
	Files map[string]string
	// Ready returns nil when the program does its work; nil means at once.
	Ready func(context.Context) error
	// StopTimeout bounds the wait for an orderly end; 0 means 10 s.
	StopTimeout time.Duration
}

// Program is a program of this project that runs beside the servers, in a folder of its own.
type Program struct {
	cfg  ProgramConfig
	work *workspace.Workspace

	mu     sync.Mutex
	server *process.Process
}

// StartProgram starts a program that is stopped when the test ends; its log is shown if the test has failed.
func StartProgram(t testing.TB, cfg ProgramConfig) *Program {
	t.Helper()
	p, err := NewProgram(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start program: %v", err)
	}
	cleanUp(t, p)
	return p
}

// NewProgram starts a program. The caller must Stop it; on error nothing is left running. ctx bounds the start.
func NewProgram(ctx context.Context, cfg ProgramConfig) (*Program, error) {
	work, err := workspace.New()
	if err != nil {
		return nil, err
	}
	p := &Program{cfg: cfg, work: work}
	for name, content := range cfg.Files {
		if _, err := work.Write([]byte(content), name); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
	}
	if err := p.Restart(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Dir is the program's folder.
func (p *Program) Dir() string { return p.work.Path() }

// Restart stops the program in good order, if it runs, and starts it again in the same folder.
func (p *Program) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		if err := p.server.Stop(); err != nil {
			return err
		}
	}
	name := filepath.Base(p.cfg.Path)
	server, err := process.Start(ctx, process.Config{
		Name: name, Path: p.cfg.Path, Args: p.inDir(p.cfg.Args), Env: append(p.inDir(p.cfg.Env), p.work.Env()),
		LogPath: p.work.Path(name + ".log"), Ready: p.cfg.Ready, StopTimeout: p.cfg.StopTimeout,
	})
	if err != nil {
		return err
	}
	p.server = server
	return nil
}

// Kill ends the program with SIGKILL.
func (p *Program) Kill() error {
	server := p.process()
	if server == nil {
		return nil
	}
	return server.Kill()
}

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.process().Done() }

// Log returns at most the last n bytes of what the program wrote.
func (p *Program) Log(n int) string { return p.process().LogTail(n) }

// Stop ends the program and removes its folder. It is safe to call again.
func (p *Program) Stop() error {
	var err error
	if server := p.process(); server != nil {
		err = server.Stop()
	}
	return errors.Join(err, p.work.Close())
}

func (p *Program) process() *process.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

func (p *Program) processes() []*process.Process {
	if server := p.process(); server != nil {
		return []*process.Process{server}
	}
	return nil
}

// inDir puts the program's folder in the place of {dir}.
func (p *Program) inDir(values []string) []string {
	replaced := make([]string, len(values))
	for i, value := range values {
		replaced[i] = strings.ReplaceAll(value, "{dir}", p.work.Path())
	}
	return replaced
}
