package containerd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criEngine asks the CRI to pull, at the endpoint that the kubelet uses: it works on every node, shares the CRI's limits and
// its suppression of duplicates, and is the slowest. The CRI does not say how far it is: progress is read from its ingests,
// and the bytes that it fetched are taken to be those of the layers that were missing.
type criEngine struct {
	credentials func(ctx context.Context, image, host string, attempt int) (username, secret string, err error)
}

// criProgressEvery is how often ingests are looked at.
const criProgressEvery = 500 * time.Millisecond

func (criEngine) name() string { return EngineCRI }

func (e criEngine) unfit(p *pull) string {
	switch {
	case p.node.namespace != DefaultNamespace:
		return "the CRI pulls into " + DefaultNamespace + " only"
	case p.node.found.SnapshotterFrom != "cri":
		return "the CRI unpacks into its own snapshotter only"
	}
	return ""
}

func (e criEngine) pull(ctx context.Context, p *pull) error {
	parts, err := missingParts(ctx, p)
	if err != nil {
		return err
	}
	var missing int64
	for _, one := range parts {
		missing += p.resolved.Layers[one.index].Size
	}
	if err := p.node.roomFor(missing); err != nil { // it unpacks to no less, and the CRI asks for none
		return err
	}
	began := time.Now()
	if err := e.ask(ctx, p, parts); err != nil {
		return err
	}
	if err := p.adopt(ctx); err != nil { // it may have found the name to stand for something else
		return err
	}
	p.progress.stage("pull", time.Since(began))
	p.progress.fetched(missing)
	return nil
}

// criName is what the CRI is asked for: where the image is fetched from, at the digest that was looked up for all nodes.
func criName(p *pull) string {
	if p.image.AtDigest == "" {
		return p.source
	}
	name, _, _ := strings.Cut(p.source, "@")
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return p.source
	}
	return reference.TrimNamed(named).String() + "@" + p.image.AtDigest
}

// ask has the CRI pull, and follows what it fetches of the missing parts.
func (e criEngine) ask(ctx context.Context, p *pull, parts []part) error {
	request := &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: criName(p)}}
	if e.credentials != nil {
		username, secret, err := e.credentials(ctx, p.source, "", 0)
		if err != nil {
			p.node.log.Error(err, "credentials are not known; trying without", "image", p.name)
		}
		switch {
		case username != "":
			request.Auth = &criapi.AuthConfig{Username: username, Password: secret}
		case secret != "":
			request.Auth = &criapi.AuthConfig{IdentityToken: secret}
		}
	}
	watchCtx, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		e.watch(watchCtx, p, parts)
	}()
	pullCtx, end := p.node.aboveFloor(ctx)
	_, err := p.node.images.PullImage(pullCtx, request)
	err = floorCause(pullCtx, err)
	end()
	stop()
	<-watched
	if err != nil && refusedByVerifier(err) {
		return fmt.Errorf("%w: %w", errVerifier, err)
	}
	if err != nil {
		return fmt.Errorf("ask the CRI to pull: %w", err)
	}
	return nil
}

// watch follows the CRI's ingests of the missing layers.
func (e criEngine) watch(ctx context.Context, p *pull, parts []part) {
	ticker := time.NewTicker(criProgressEvery)
	defer ticker.Stop()
	seen := map[string]int64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		statuses, err := p.node.client.ContentStore().ListStatuses(ctx)
		if err != nil {
			continue
		}
		for _, one := range parts {
			p.progress.done(ingested(statuses, p.resolved.Layers[one.index].Digest.String(), seen))
		}
	}
}

// ingested returns what has come of a layer since the last look.
func ingested(statuses []content.Status, dgst string, seen map[string]int64) int64 {
	for _, s := range statuses {
		if s.Ref == "layer-"+dgst && s.Offset > seen[dgst] {
			more := s.Offset - seen[dgst]
			seen[dgst] = s.Offset
			return more
		}
	}
	return 0
}
