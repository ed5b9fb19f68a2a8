package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
)

// Labels of a pin. The first is the CRI's: the kubelet's image garbage collection leaves the image alone, also when the
// disk is full. So every pin says whose it is and when it ends, and sweep ends it.
// Source: containerd internal/cri/labels/labels.go@v2.4.2.
const (
	labelPinned      = "io.cri-containerd.pinned"
	labelPinnedValue = "pinned"
	// labelOwner marks a pin as ours: no other is ever dropped.
	labelOwner = "headstart.dev/pinned-by"
	// labelUntil is when the pin expires, RFC 3339.
	labelUntil = "headstart.dev/pinned-until"
)

// Owners of pins. The agent renews its pins for as long as it wants them; those of a command are for whoever ran it,
// and end when they expire.
const (
	OwnerAgent   = "headstart-agent"
	OwnerCommand = "headstart-pull"
)

// pinTTL is how long a pin holds without being renewed: a node that was off for a long weekend finds its images.
const pinTTL = 7 * 24 * time.Hour

func pinLabels(owner string, now time.Time) map[string]string {
	return map[string]string{labelPinned: labelPinnedValue, labelOwner: owner, labelUntil: now.Add(pinTTL).UTC().Format(time.RFC3339)}
}

func isOwner(value string) bool { return value == OwnerAgent || value == OwnerCommand }

// pinExpired reports whether a pin has ended; one that does not say when has.
func pinExpired(record images.Image, now time.Time) bool {
	until, err := time.Parse(time.RFC3339, record.Labels[labelUntil])
	return err != nil || now.After(until)
}

// pinPlan is what a sweep does to image records.
type pinPlan struct{ drop, renew []images.Image }

// planPins decides which of our pins end and which are renewed. wanted are the names whose images owner wants pinned:
// with every record that such an image has now, and none that it had before its tag moved. nil wanted is not known:
// only what has expired ends.
func planPins(records []images.Image, owner string, wanted []string, now time.Time) pinPlan {
	targets := map[string]string{} // of wanted names
	for _, name := range wanted {
		targets[name] = ""
	}
	for _, record := range records {
		if _, want := targets[record.Name]; want {
			targets[record.Name] = record.Target.Digest.String()
		}
	}
	var plan pinPlan
	for _, record := range records {
		mine := record.Labels[labelOwner] == owner
		switch {
		case wants(targets, record):
			until, err := time.Parse(time.RFC3339, record.Labels[labelUntil])
			if !mine || record.Labels[labelPinned] != labelPinnedValue || err != nil || until.Sub(now) < pinTTL/2 {
				plan.renew = append(plan.renew, record)
			}
		case !isOwner(record.Labels[labelOwner]):
		case pinExpired(record, now), mine && wanted != nil:
			plan.drop = append(plan.drop, record)
		}
	}
	return plan
}

// wants reports whether a record is one of a wanted image: it has the name, or the same target under the name's
// repository at a digest, or under the config's digest.
func wants(targets map[string]string, record images.Image) bool {
	for name, target := range targets {
		if target == "" || target != record.Target.Digest.String() {
			continue
		}
		if record.Name == name || isDigest(record.Name) || (strings.Contains(record.Name, "@") && repository(record.Name) == repository(name)) {
			return true
		}
	}
	return false
}

// sweepPins ends pins that have expired or that nobody wants, and renews those that somebody does.
func (n *node) sweepPins(ctx context.Context, wanted []string) error {
	service := n.client.ImageService()
	records, err := service.List(ctx)
	if err != nil {
		return fmt.Errorf("list the image records: %w", err)
	}
	now := time.Now()
	plan := planPins(records, n.pinOwner, wanted, now)
	var errs []error
	for _, record := range plan.drop {
		n.log.Info("pin ends", "image", record.Name, "owner", record.Labels[labelOwner], "until", record.Labels[labelUntil])
		errs = append(errs, n.dropPin(ctx, record))
	}
	for _, record := range plan.renew {
		labels := pinLabels(n.pinOwner, now)
		fields := make([]string, 0, len(labels))
		for key := range labels {
			fields = append(fields, "labels."+key)
		}
		record.Labels = labels
		if _, err := service.Update(ctx, record, fields...); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("renew the pin of %q: %w", record.Name, err))
		}
	}
	return errors.Join(errs...)
}

// unpin drops our pin from every record of the name's image, except from the config's record while another of our pins
// stands on it: images with different names may share it.
func (n *node) unpin(ctx context.Context, name string) error {
	service := n.client.ImageService()
	img, err := service.Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := service.List(ctx, fmt.Sprintf("target.digest==%s", img.Target.Digest))
	if err != nil {
		return fmt.Errorf("list the records of %s: %w", img.Target.Digest, err)
	}
	repo := repository(name)
	var configs []images.Image
	others := false
	for _, record := range all {
		switch {
		case record.Labels[labelOwner] != n.pinOwner:
		case isDigest(record.Name):
			configs = append(configs, record)
		case record.Name == name || (repository(record.Name) == repo && strings.Contains(record.Name, "@")):
			if err := n.dropPin(ctx, record); err != nil {
				return err
			}
		default:
			others = true
		}
	}
	if others {
		return nil
	}
	for _, record := range configs {
		if err := n.dropPin(ctx, record); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) dropPin(ctx context.Context, record images.Image) error {
	labels := maps.Clone(record.Labels)
	for _, key := range []string{labelPinned, labelOwner, labelUntil} {
		delete(labels, key)
	}
	record.Labels = labels
	// The whole map: a single label's field path cannot delete.
	if _, err := n.client.ImageService().Update(ctx, record, "labels"); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("unpin the image record %q: %w", record.Name, err)
	}
	return nil
}
