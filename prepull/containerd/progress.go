package containerd

import (
	"slices"
	"strings"
	"sync"
	"time"

	"headstart.dev/prepull"
)

// reportEvery bounds how often one image's progress is told: a bar moves smoothly at ten steps a second.
const reportEvery = 100 * time.Millisecond

// progress collects what a pull does and tells it on, not too often and in order.
type progress struct {
	report func(prepull.Progress)

	mu     sync.Mutex
	now    prepull.Progress
	stages []prepull.Stage
	told   time.Time
}

func newProgress(report func(prepull.Progress)) *progress { return &progress{report: report} }

func (p *progress) change(always bool, change func(*prepull.Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.now)
	if p.report == nil || (!always && time.Since(p.told) < reportEvery) {
		return
	}
	p.told = time.Now()
	p.report(p.now) // under the lock: reports of one image stay in order
}

func (p *progress) resolved(digest string, total int64) {
	p.change(true, func(pr *prepull.Progress) { pr.Digest, pr.TotalBytes = digest, total })
}

func (p *progress) engine(name string) {
	p.change(true, func(pr *prepull.Progress) { pr.Engine = name })
}

func (p *progress) into(found Discovery) {
	p.change(false, func(pr *prepull.Progress) {
		pr.Snapshotter, pr.Runtime = found.Snapshotter, "containerd "+found.Version
	})
}

// again begins to count anew what is ready: all layers are looked at once more.
func (p *progress) again() { p.change(false, func(pr *prepull.Progress) { pr.DoneBytes = 0 }) }

func (p *progress) passedOver(engine, reason string) {
	p.change(true, func(pr *prepull.Progress) {
		pr.PassedOver = append(slices.Clip(pr.PassedOver), prepull.PassedOver{Engine: engine, Reason: oneLine(reason)})
	})
}

func (p *progress) fetched(n int64) {
	p.change(false, func(pr *prepull.Progress) { pr.FetchedBytes += n })
}

func (p *progress) done(n int64) { p.change(false, func(pr *prepull.Progress) { pr.DoneBytes += n }) }

// reach replaces what was counted by what is known.
func (p *progress) reach(done int64) {
	p.change(true, func(pr *prepull.Progress) { pr.DoneBytes = done })
}

func (p *progress) complete() {
	p.change(true, func(pr *prepull.Progress) { pr.DoneBytes = pr.TotalBytes })
}

// stage adds time to a stage; stages keep the order in which they were first seen.
func (p *progress) stage(name string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.stages {
		if p.stages[i].Name == name {
			p.stages[i].Duration += d
			return
		}
	}
	p.stages = append(p.stages, prepull.Stage{Name: name, Duration: d})
}

func (p *progress) snapshot() prepull.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *progress) result() prepull.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return prepull.Result{Progress: p.now, Stages: p.stages}
}

// oneLine renders an error's text for a status.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
