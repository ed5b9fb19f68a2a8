package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/resource"

	"headstart.dev/agent"
	"headstart.dev/agent/policy"
	"headstart.dev/cmd/internal/cli"
	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/prepull/credentials"
)

// newPuller wires the puller of a config's images.
func newPuller(cfg agent.Config, log logr.Logger, registry prometheus.Registerer) func(prepull.Observer) (agent.Puller, error) {
	return func(observe prepull.Observer) (agent.Puller, error) {
		log := log.WithName("pull")
		minBytes, minPercent, err := minFree(cfg.Pull.MinFree)
		if err != nil {
			return nil, cli.Usage(err)
		}
		// Never pull into the kubelet's image garbage collection, whatever the config allows.
		minPercent = max(minPercent, policy.FreeFloor())
		keyring, err := credentials.New(credentials.Config{
			ProviderConfig: cfg.Registry.CredentialProviderConfig, ProviderBinDir: cfg.Registry.CredentialProviderBinDir, Log: log,
		})
		if err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
		rewrites := make([]containerd.Rewrite, 0, len(cfg.Registry.Rewrites))
		for _, rewrite := range cfg.Registry.Rewrites {
			rewrites = append(rewrites, containerd.Rewrite(rewrite))
		}
		store, err := containerd.New(containerd.Config{
			Address: cfg.Containerd.Address, Namespace: cfg.Containerd.Namespace, Snapshotter: cfg.Containerd.Snapshotter,
			Credentials: keyring.Lookup, Rewrites: rewrites, Log: log,
			MaxConcurrentDownloads: cfg.Pull.MaxConcurrentDownloads, ChunkSize: int(cfg.Pull.ChunkSize.Bytes),
			Bandwidth: cfg.Pull.Bandwidth.Bytes, MinFreeBytes: minBytes, MinFreePercent: minPercent,
		})
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("containerd: %w", err))
		}
		puller, err := prepull.New(prepull.Config{
			Store: store, Images: cfg.Images, Observer: observe, Log: log, Registerer: registry,
		})
		if err != nil {
			return nil, errors.Join(err, store.Close())
		}
		return storePuller{puller, store}, nil
	}
}

// minFree reads a share ("10%") or a size ("20Gi").
func minFree(text string) (bytes int64, percent int, err error) {
	if share, isShare := strings.CutSuffix(text, "%"); isShare {
		percent, err = strconv.Atoi(share)
		if err != nil || percent < 0 || percent > 100 {
			return 0, 0, fmt.Errorf("pull.minFree %q: want 0%% to 100%%, or a size such as 20Gi", text)
		}
		return 1, min(percent, 99), nil // one byte: a share of nothing is a wish as well, and not the default
	}
	size, err := resource.ParseQuantity(text)
	if err != nil || size.Sign() < 0 {
		return 0, 0, fmt.Errorf("pull.minFree %q: want a share such as 10%%, or a size such as 20Gi", text)
	}
	return size.Value(), 0, nil
}

// storePuller lets the puller know what has gone from the store, and closes the store when the puller has ended.
type storePuller struct {
	puller *prepull.Puller
	store  *containerd.Store
}

func (p storePuller) SetImages(images []prepull.Image) { p.puller.SetImages(images) }

func (p storePuller) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	watching.Go(func() { p.store.Watch(ctx, p.puller.Check) })
	err := p.puller.Run(ctx)
	watching.Wait()
	return errors.Join(err, p.store.Close())
}
