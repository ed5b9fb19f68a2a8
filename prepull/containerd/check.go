package containerd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The CRI learns of new records by events, within milliseconds; it may be busy when a node boots.
const (
	checkTimeout = 10 * time.Second
	checkPoll    = 50 * time.Millisecond
)

// check implements selfChecker: the first image that the engine brings is compared with what the CRI sees of it. On a
// mismatch the engine is not used on this node again.
func (e *directEngine) check(ctx context.Context, p *pull) error {
	if e.proved.Load() {
		return nil
	}
	mismatch, err := p.checkAgainstCRI(ctx)
	if err != nil {
		return err
	}
	if mismatch != "" {
		e.standDown("it failed its check on this node: " + mismatch)
		p.node.log.Info("direct engine stands down", "image", p.name, "reason", mismatch)
		return fmt.Errorf("check the image against the CRI: %s", mismatch)
	}
	e.proved.Store(true)
	return nil
}

// checkAgainstCRI asks the CRI whether it sees the image as one that it pulled itself, and says what it sees instead.
func (p *pull) checkAgainstCRI(ctx context.Context) (mismatch string, err error) {
	if p.node.namespace != DefaultNamespace || p.node.found.SnapshotterFrom != "cri" {
		return "", nil // the CRI does not look there
	}
	deadline := time.Now().Add(checkTimeout)
	for {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		resp, err := p.node.cri.ImageStatus(callCtx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: p.name}})
		cancel()
		if err != nil {
			return "", fmt.Errorf("ask the CRI for the image: %w", err)
		}
		mismatch = p.compareWithCRI(resp.GetImage())
		if mismatch == "" || time.Now().After(deadline) {
			return mismatch, nil
		}
		timer := time.NewTimer(checkPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", ctx.Err()
		case <-timer.C:
		}
	}
}

func (p *pull) compareWithCRI(seen *criapi.Image) string {
	if seen == nil {
		return "the CRI does not see it"
	}
	if want := p.resolved.Config.Digest.String(); seen.Id != want {
		return fmt.Sprintf("the CRI sees the image ID %s and not %s", seen.Id, want)
	}
	named, err := reference.ParseDockerRef(p.name)
	if err != nil {
		return err.Error()
	}
	if want := named.Name() + "@" + p.resolved.Target.Digest.String(); !slices.Contains(seen.RepoDigests, want) {
		return fmt.Sprintf("the CRI does not know it as %s", want)
	}
	if _, tagged := named.(reference.Tagged); tagged && !slices.Contains(seen.RepoTags, named.String()) {
		return fmt.Sprintf("the CRI does not know it as %s", named)
	}
	return ""
}
