package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/agent"
	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/prepull/credentials"
)

// newPuller wires the puller of a config's images.
func newPuller(cfg agent.Config, log logr.Logger, registry prometheus.Registerer) func(prepull.Observer) (agent.Puller, error) {
	return func(observe prepull.Observer) (agent.Puller, error) {
		log := log.WithName("pull")
		if err := checkLimits(cfg.Pull); err != nil {
			return nil, err
		}
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
		})
		if err != nil {
			return nil, fmt.Errorf("containerd: %w", err)
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

// checkLimits refuses limits that would not be kept.
func checkLimits(limits agent.Pull) error {
	for field, set := range map[string]bool{
		"maxConcurrentDownloads": limits.MaxConcurrentDownloads != 0, "chunkSize": limits.ChunkSize.Bytes != 0,
		"bandwidth": limits.Bandwidth.Bytes != 0, "minFree": limits.MinFree != agent.DefaultMinFree,
	} {
		if set {
			return fmt.Errorf("pull.%s: this build cannot keep to it: leave it out", field)
		}
	}
	return nil
}

// storePuller closes the store when the puller has ended.
type storePuller struct {
	puller *prepull.Puller
	store  *containerd.Store
}

func (p storePuller) Run(ctx context.Context) error {
	return errors.Join(p.puller.Run(ctx), p.store.Close())
}
