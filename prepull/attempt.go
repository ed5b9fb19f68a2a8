package prepull

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-logr/logr"
)

// releaseTimeout bounds the giving up of a pin; it is a few local calls.
const releaseTimeout = 30 * time.Second

// pull tries one image until it is there, cannot heal, is given up, or ctx ends.
func (p *Puller) pull(ctx context.Context, name string, pl *pull) {
	log := p.cfg.Log.WithValues("image", name)
	if !pl.due(ctx) {
		return
	}
	for tried := (trials{}); ; {
		p.update(pl, func(s *ImageStatus) {
			if s.Attempts++; !s.Retrying {
				s.State = StatePulling
			}
			if s.Started.IsZero() {
				s.Started = time.Now()
			}
		})
		status, follow, err := p.attempt(ctx, pl)
		if err == nil {
			log.Info("image is there", "state", status.State, "digest", status.Digest, "engine", status.Engine,
				"fetchedBytes", status.FetchedBytes, "attempt", status.Attempts,
				"duration", status.Finished.Sub(status.Started).Round(time.Millisecond).String(), "stages", stages(status.Stages))
			p.follow(ctx, pl, follow, log)
			return
		}
		if ctx.Err() != nil {
			p.interrupted(ctx, pl, err)
			return
		}
		tried.failed(status.DoneBytes, err)
		if tried.hopeless(err, p.cfg.MaxAttempts) {
			p.metrics.seconds.WithLabelValues(string(resultFailed)).Observe(time.Since(status.Started).Seconds())
			p.update(pl, func(s *ImageStatus) {
				s.State, s.Retrying, s.Error, s.Finished = StateFailed, false, oneLine(err), time.Now()
			})
			log.Error(err, "image failed", "attempt", status.Attempts)
			return
		}
		log.Info("image is tried again", "attempt", status.Attempts, "reason", oneLine(err))
		p.update(pl, func(s *ImageStatus) {
			s.Error = oneLine(err)
			if tried.looksFailed(err) {
				s.State, s.Retrying = StateFailed, true
			}
		})
		if !tried.pause(ctx, err) {
			return
		}
	}
}

// interrupted keeps why an image was not there yet when its time was over, unless an earlier attempt has said why. The
// Observer is not called: what is stopped because nobody wants it is no news.
func (p *Puller) interrupted(ctx context.Context, pl *pull, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reason := oneLine(err); pl.status.Error == "" && reason != ctx.Err().Error() {
		pl.status.Error = reason
	}
}

// follower watches what a lazy image fetches in the background.
type follower func(ctx context.Context, report func(Progress)) error

// follow tells of a lazy image's bytes until all have come. The image stays lazy: see package soci.
func (p *Puller) follow(ctx context.Context, pl *pull, follow follower, log logr.Logger) {
	if follow == nil {
		return
	}
	began := time.Now()
	err := follow(ctx, func(pr Progress) {
		p.update(pl, func(s *ImageStatus) { s.FetchedBytes, s.DoneBytes = pr.FetchedBytes, pr.DoneBytes })
	})
	switch {
	case err == nil:
		log.Info("lazy image has been fetched in the background", "duration", time.Since(began).Round(time.Millisecond).String())
	case ctx.Err() == nil:
		log.Error(err, "lazy image is followed no longer")
	}
}

// attempt runs the Store once and returns the status that it led to.
func (p *Puller) attempt(ctx context.Context, pl *pull) (ImageStatus, follower, error) {
	p.mu.Lock()
	img, fetchedBefore := pl.status.Image, pl.status.FetchedBytes
	p.mu.Unlock()
	var counted int64
	apply := func(s *ImageStatus, pr Progress) {
		s.Digest, s.Engine, s.Snapshotter, s.Runtime, s.PassedOver = pr.Digest, pr.Engine, pr.Snapshotter, pr.Runtime, pr.PassedOver
		s.FetchedBytes, s.DoneBytes, s.TotalBytes = fetchedBefore+pr.FetchedBytes, pr.DoneBytes, pr.TotalBytes
		p.metrics.bytes.Add(float64(max(0, pr.FetchedBytes-counted)))
		counted = max(counted, pr.FetchedBytes)
	}
	result, err := p.cfg.Store.Pull(ctx, img, func(pr Progress) {
		p.update(pl, func(s *ImageStatus) { apply(s, pr) })
	})
	if err == nil {
		p.update(pl, func(s *ImageStatus) {
			apply(s, result.Progress)
			s.State, s.Retrying, s.Error, s.Finished, s.Stages = StateWarm, false, "", time.Now(), result.Stages
			if result.Lazy {
				s.State = StateLazy
			}
		})
	}
	p.mu.Lock()
	status := pl.status
	p.mu.Unlock()
	if err == nil {
		p.metrics.seconds.WithLabelValues(string(outcome(status))).Observe(status.Finished.Sub(status.Started).Seconds())
	}
	return status, result.Follow, err
}

// release gives up the pin of an image that is wanted no longer.
func (p *Puller) release(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := p.cfg.Store.Release(ctx, name); err != nil && !errors.Is(err, context.Canceled) {
		p.cfg.Log.Error(err, "image keeps its pin until the pin expires", "image", name)
	}
}

// sweep clears what earlier runs have left. It comes again, so its failure is no news.
func (p *Puller) sweep(ctx context.Context, pinned []string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := p.cfg.Store.Sweep(ctx, pinned); err != nil {
		p.cfg.Log.V(1).Info("pins are not swept", "reason", oneLine(err))
	}
}

// stages renders where a pull's time went, for a journal.
func stages(all []Stage) string {
	parts := make([]string, 0, len(all))
	for _, s := range all {
		parts = append(parts, s.Name+"="+s.Duration.Round(time.Millisecond).String())
	}
	return strings.Join(parts, " ")
}

// oneLine renders an error for a status or a journal.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
