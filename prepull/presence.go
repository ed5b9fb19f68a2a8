package prepull

import (
	"context"
	"time"
)

// regainUnpinned is how long an image that went from the node and is not pinned stays away: the kubelet took it because
// the room was needed, and would be at it again at once.
const regainUnpinned = 5 * time.Minute

// Check compares what is there with what was pulled: an image that has gone from the node since, because somebody removed
// it, is wanted again and counts as pending until it is back. there holds the names of all images that the node had at
// the given time; pulls that ended later are left alone.
func (p *Puller) Check(there map[string]bool, at time.Time) {
	p.mu.Lock()
	var lost []*pull
	for name, pl := range p.pulls {
		s := pl.status
		if s.State != StateWarm && s.State != StateLazy || s.Finished.After(at) || there[name] {
			continue
		}
		p.cfg.Log.Info("image has gone from the node", "image", name, "pinned", s.Pin)
		if pl.cancel != nil {
			pl.cancel()
		}
		again := &pull{status: firstStatus(s.Image)}
		if !s.Pin {
			again.delay = regainUnpinned
		}
		p.pulls[name] = again
		lost = append(lost, again)
	}
	if len(lost) > 0 {
		p.wake()
	}
	p.mu.Unlock()
	for _, pl := range lost {
		p.observe(pl)
	}
}

// due waits for the delay of a pull, and says whether its time has come before ctx ended.
func (pl *pull) due(ctx context.Context) bool {
	timer := time.NewTimer(pl.delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
