package prepull

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Puller needs. Store is required.
type Config struct {
	// Store receives the images.
	Store Store
	// Images is the first set of wanted images; SetImages replaces it.
	Images []Image
	// Observer, when set, is told of every change.
	Observer Observer
	// Log gets one line for every image that is there, has failed, or is tried again.
	Log logr.Logger
	// MaxAttempts gives an image up as StateFailed after so many failed attempts in a row that brought nothing, and at once
	// where only room on the disk would help; 0 tries until the context ends.
	MaxAttempts int
	// Registerer, when set, gets the metrics headstart_pull_seconds and headstart_pull_bytes_total.
	Registerer prometheus.Registerer
}

// Puller brings a set of images to a node and tries again what can heal. All wanted images are handed to the Store at
// once, most important first: the Store shares network, cores and disk among them by priority.
//
// All methods are safe for concurrent use.
type Puller struct {
	cfg     Config
	metrics metrics

	mu     sync.Mutex
	pulls  map[string]*pull // by normalised name, or by reference where that cannot be parsed
	unpin  []string         // names whose pins Run has to give up
	notify chan struct{}    // closed and replaced on every change that Run or Wait look at
}

// pull is one wanted image.
type pull struct {
	status  ImageStatus
	started bool
	delay   time.Duration // before the first attempt
	cancel  context.CancelFunc
	deliver sync.Mutex // one Observer call at a time for one image
}

// New checks the config. An image whose reference cannot be parsed is no error: it is reported as StateFailed, so that
// one typing error in a list does not keep the others away.
func New(cfg Config) (*Puller, error) {
	if cfg.Store == nil {
		return nil, errors.New("new puller: no store")
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	p := &Puller{cfg: cfg, metrics: m, pulls: map[string]*pull{}, notify: make(chan struct{})}
	p.SetImages(cfg.Images)
	return p, nil
}

// Run pulls what is wanted until ctx ends, then waits for the pulls to stop and returns nil. Call it once.
func (p *Puller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.sweep(ctx, nil) })
	sweep := time.NewTimer(sweepFirst)
	defer sweep.Stop()
	for {
		p.mu.Lock()
		changed := p.notify
		for name, pl := range p.ordered() {
			if pl.started || pl.status.State == StateFailed {
				continue
			}
			pullCtx, cancel := context.WithCancel(ctx)
			pl.started, pl.cancel = true, cancel
			wg.Go(func() {
				defer cancel()
				p.pull(pullCtx, name, pl)
			})
		}
		for _, name := range p.unpin {
			wg.Go(func() { p.release(ctx, name) })
		}
		p.unpin = nil
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-sweep.C:
			sweep.Reset(sweepEvery)
			pinned := p.pinned()
			wg.Go(func() { p.sweep(ctx, pinned) })
		}
	}
}

// Pins of earlier runs that nobody wants end when it must be known what is wanted: policies come from the API server some
// time after the start, and what they pin must not lose its pin at every restart of the agent. Expired pins end at once.
const (
	sweepFirst = 15 * time.Minute
	sweepEvery = time.Hour
)

// pinned returns the names of all images that are to be pinned; never nil.
func (p *Puller) pinned() []string {
	names := []string{}
	for _, s := range p.Status() {
		if s.Pin {
			names = append(names, s.Name)
		}
	}
	return names
}

// Wait blocks until every wanted image is warm, lazy or failed, and returns their statuses in the order of Status; or
// until ctx ends, and returns its error as well. Something must call Run meanwhile.
func (p *Puller) Wait(ctx context.Context) ([]ImageStatus, error) {
	for {
		p.mu.Lock()
		changed := p.notify
		p.mu.Unlock()
		statuses := p.Status()
		if !slices.ContainsFunc(statuses, func(s ImageStatus) bool { return !s.Settled() }) {
			return statuses, nil
		}
		select {
		case <-ctx.Done():
			return p.Status(), ctx.Err()
		case <-changed:
		}
	}
}

// SetImages replaces what is wanted. A pull of an image that is wanted no longer is stopped and its pin given up; one
// that is still wanted goes on. An image that is listed twice is pulled once, with the stronger of all wishes.
func (p *Puller) SetImages(images []Image) {
	wanted := merge(images)
	p.mu.Lock()
	var changed []*pull
	for name, pl := range p.pulls {
		if _, still := wanted[name]; still {
			continue
		}
		delete(p.pulls, name)
		if pl.cancel != nil {
			pl.cancel()
		}
		p.unpin = append(p.unpin, name)
	}
	for name, img := range wanted {
		pl, known := p.pulls[name]
		switch {
		case !known:
			pl = &pull{status: firstStatus(img)}
			p.pulls[name] = pl
		case pl.status.Image == img:
			continue
		default:
			if (pl.started || pl.status.State == StateFailed) && pl.status.outdated(img) {
				if pl.cancel != nil {
					pl.cancel()
				}
				pl = &pull{status: firstStatus(img)}
				p.pulls[name] = pl
			}
			pl.status.Image = img
		}
		changed = append(changed, pl)
	}
	p.wake()
	p.mu.Unlock()
	for _, pl := range changed {
		p.observe(pl)
	}
}

// outdated says whether only a new pull fulfils the wish: it writes or drops a pin, which fetches nothing, or brings what
// the tag names now, or the whole of what could be lazy until now.
func (s ImageStatus) outdated(img Image) bool {
	moved := img.AtDigest != "" && img.AtDigest != s.AtDigest && img.AtDigest != s.Digest
	return s.Pin != img.Pin || moved || s.Mode.Lazy() && !img.Mode.Lazy()
}

// Status returns every wanted image: highest priority first, then by name.
func (p *Puller) Status() []ImageStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	statuses := make([]ImageStatus, 0, len(p.pulls))
	for _, pl := range p.ordered() {
		statuses = append(statuses, pl.status)
	}
	return statuses
}

// ordered iterates the pulls in the order of Status. The caller holds mu.
func (p *Puller) ordered() func(func(string, *pull) bool) {
	names := make([]string, 0, len(p.pulls))
	for name := range p.pulls {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(p.pulls[b].status.Priority, p.pulls[a].status.Priority), cmp.Compare(a, b))
	})
	return func(yield func(string, *pull) bool) {
		for _, name := range names {
			if !yield(name, p.pulls[name]) {
				return
			}
		}
	}
}

// wake tells Run and Wait to look again. The caller holds mu.
func (p *Puller) wake() {
	close(p.notify)
	p.notify = make(chan struct{})
}

// update changes a status under the lock and tells the observer.
func (p *Puller) update(pl *pull, change func(*ImageStatus)) {
	p.mu.Lock()
	before, settled := pl.status.State, pl.status.Settled()
	change(&pl.status)
	if pl.status.State != before || pl.status.Settled() != settled {
		p.wake()
	}
	p.mu.Unlock()
	p.observe(pl)
}

func (p *Puller) observe(pl *pull) {
	if p.cfg.Observer == nil {
		return
	}
	pl.deliver.Lock()
	defer pl.deliver.Unlock()
	p.mu.Lock()
	status := pl.status
	p.mu.Unlock()
	p.cfg.Observer(status)
}

// merge keys images by normalised name; of duplicates it keeps the highest priority and every wish.
func merge(images []Image) map[string]Image {
	wanted := map[string]Image{}
	for _, img := range images {
		name, err := Normalize(img.Ref)
		if err != nil {
			name = img.Ref
		}
		if other, twice := wanted[name]; twice {
			img.Ref = other.Ref
			img.Priority = max(img.Priority, other.Priority)
			img.Required = img.Required || other.Required
			img.Pin = img.Pin || other.Pin
			img.Mode = img.Mode.Stronger(other.Mode)
			img.AtDigest = cmp.Or(other.AtDigest, img.AtDigest)
		}
		wanted[name] = img
	}
	return wanted
}

func firstStatus(img Image) ImageStatus {
	name, err := Normalize(img.Ref)
	if err != nil {
		return ImageStatus{Image: img, Name: img.Ref, State: StateFailed, Error: err.Error(), Finished: time.Now()}
	}
	return ImageStatus{Image: img, Name: name, State: StatePending}
}

// Settled says that nothing more will happen to the image by itself.
func (s ImageStatus) Settled() bool {
	return s.State == StateWarm || s.State == StateLazy || s.State == StateFailed && !s.Retrying
}
