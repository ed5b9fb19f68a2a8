package containerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The CRI learns of new records by events, within milliseconds; it may be busy when a node boots.
const (
	checkTimeout   = 10 * time.Second
	checkPollFirst = 2 * time.Millisecond
	checkPollCap   = 100 * time.Millisecond
)

// errNotSeen: the CRI does not see the image as one that it pulled itself.
var errNotSeen = errors.New("check the image against the CRI")

// verdictImages is how many images, that another engine then brought, an engine must have failed its check with to be used
// no longer on this node. One may be odd.
const verdictImages = 2

// accept makes an image visible and asks the CRI whether it sees it, whichever engine brought it; nil is the node itself.
// An image that it does not see is not left behind under its names.
func (s *Store) accept(ctx context.Context, p *pull, e engine) error {
	made, err := p.writeRecords(ctx)
	if err != nil {
		return err
	}
	made = append(made, p.named...)
	mismatch, err := p.checkAgainstCRI(ctx)
	if err != nil {
		return err
	}
	if mismatch == "" {
		return nil
	}
	p.node.log.Info("the CRI does not see the image", "image", p.name, "reason", mismatch)
	if direct, is := e.(*directEngine); is {
		p.doubt = func() { direct.doubted("it failed its check on this node: " + mismatch) }
	}
	return errors.Join(fmt.Errorf("%w: %s", errNotSeen, mismatch), p.node.removeRecords(ctx, made))
}

// vindicate is called when an engine has brought an image with which another may have failed its check: then it was not
// the image's fault.
func (*Store) vindicate(p *pull, e engine) {
	if direct, is := e.(*directEngine); is {
		direct.proved()
	} else if p.doubt != nil {
		p.doubt()
	}
}

// doubted counts a failed check. Who has brought any image that the CRI sees is not judged by others.
func (e *directEngine) doubted(reason string) {
	if e.accepted.Load() {
		return
	}
	if e.doubts.Add(1) >= verdictImages {
		e.standDown(reason)
	}
}

func (e *directEngine) proved() { e.accepted.Store(true) }

// removeRecords removes records that were just made.
func (n *node) removeRecords(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var errs []error
	for _, name := range names {
		if err := n.client.ImageService().Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove the image record %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// checkAgainstCRI asks the CRI whether it sees the image as one that it pulled itself, and says what it sees instead.
func (p *pull) checkAgainstCRI(ctx context.Context) (mismatch string, err error) {
	if p.node.namespace != DefaultNamespace || p.node.found.SnapshotterFrom != "cri" {
		return "", nil // the CRI does not look there
	}
	deadline := time.Now().Add(checkTimeout)
	for wait := checkPollFirst; ; wait = min(2*wait, checkPollCap) {
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
		timer := time.NewTimer(wait)
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
