package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/agent"
	"headstart.dev/bottlerocket"
	"headstart.dev/cmd/internal/cli"
	"headstart.dev/prepull"
)

// inHostContainer says whether this is a Bottlerocket host container: it has no config file of its own, but user-data.
func inHostContainer(config, userData string) bool {
	if config != defaultConfig {
		return false
	}
	if _, err := os.Stat(config); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err := os.Stat(userData)
	return err == nil
}

// switchOff ends the host container for this instance.
type switchOff func(ctx context.Context, container string) error

// runHostContainer pulls the images of the config and switches the container off. It publishes nothing: the kubelet's
// credentials come from a program that only the host can run. The DaemonSet does, once the node is in the cluster.
func runHostContainer(ctx context.Context, userData string, off switchOff, log logr.Logger) error {
	cfg, err := agent.Load(userData)
	if err != nil {
		return cli.Usage(err)
	}
	if len(cfg.Images) > 0 {
		pending := newPending(cfg.Images)
		puller, err := newPuller(cfg, log, prometheus.NewRegistry())(pending.observe)
		if err != nil {
			return err
		}
		pulling, stop := context.WithCancel(ctx)
		go func() {
			select {
			case <-pending.settled:
			case <-ctx.Done():
			}
			stop()
		}()
		err = puller.Run(pulling)
		stop()
		if err != nil {
			return fmt.Errorf("pull images: %w", err)
		}
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // we were told to stop, and systemd starts us again
	}
	log.Info("images are done, switching the host container off", "unit", bottlerocket.ContainerName)
	return off(ctx, bottlerocket.ContainerName)
}

// pending closes settled when every image is there or will not come by itself.
type pending struct {
	settled chan struct{}

	mu   sync.Mutex
	left map[string]bool // by reference
}

func newPending(images []prepull.Image) *pending {
	p := &pending{settled: make(chan struct{}), left: map[string]bool{}}
	for _, image := range images {
		p.left[image.Ref] = true
	}
	return p
}

func (p *pending) observe(s prepull.ImageStatus) {
	if s.State == prepull.StatePending || s.State == prepull.StatePulling {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left[s.Ref] {
		if delete(p.left, s.Ref); len(p.left) == 0 {
			close(p.settled)
		}
	}
}
