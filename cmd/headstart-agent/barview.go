package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
)

// maxBarWidth is that of one bar in characters; a narrow terminal leaves it less, and then none.
const maxBarWidth = 26

// barView draws one bar for each image that is under way, without colours, and above them one line for each that has
// settled.
type barView struct {
	out      io.Writer
	progress *mpb.Progress

	mu   sync.Mutex
	bars map[string]*imageBar // nil for an image whose line is written
}

// imageBar is the bar of one image. Its decorators read the status from the drawing goroutine.
type imageBar struct {
	bar *mpb.Bar // nil where nothing is drawn any more

	mu     sync.Mutex
	status prepull.ImageStatus
}

func newBarView(out io.Writer, options ...mpb.ContainerOption) *barView {
	options = append([]mpb.ContainerOption{mpb.WithOutput(out)}, options...)
	return &barView{out: out, progress: mpb.New(options...), bars: map[string]*imageBar{}}
}

func (v *barView) observe(s prepull.ImageStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, known := v.bars[s.Name]
	switch {
	case known && b == nil: // its line is written; what a lazy image fetches afterwards is no part of the pull
	case s.Settled():
		v.settle(b, s)
	case !known:
		v.bars[s.Name] = v.add(s)
	default:
		b.set(s)
	}
}

// settle writes an image's line and then ends its bar: what ends the bar also draws, and with it writes all lines so far.
// The caller holds mu.
func (v *barView) settle(b *imageBar, s prepull.ImageStatus) {
	if b == nil {
		b = v.add(s)
	}
	v.bars[s.Name] = nil
	if _, err := fmt.Fprintln(v.progress, describe(s)); err != nil { // the terminal could not be drawn on
		fmt.Fprintln(v.out, describe(s))
	}
	b.end()
}

func (v *barView) add(s prepull.ImageStatus) *imageBar {
	b := &imageBar{}
	style := mpb.BarStyle().Lbound("[").Filler("=").Tip("=").Padding(" ").Rbound("]")
	// An error says that nothing is drawn any more.
	b.bar, _ = v.progress.Add(0, style.Build(), mpb.BarWidth(maxBarWidth), mpb.BarFillerTrim(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return shortName(b.get().Name) + " " }, decor.WCSyncWidthR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + numbers(b.get()) })))
	b.set(s)
	return b
}

// finish draws for the last time.
func (v *barView) finish(statuses []prepull.ImageStatus, _ *containerd.Discovery) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range statuses {
		if b, known := v.bars[s.Name]; !known || b != nil {
			v.settle(b, s)
		}
	}
	v.progress.Wait()
}

func (b *imageBar) get() prepull.ImageStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

func (b *imageBar) set(s prepull.ImageStatus) {
	b.mu.Lock()
	b.status = s
	b.mu.Unlock()
	if b.bar != nil && s.TotalBytes > 0 {
		b.bar.SetTotal(s.TotalBytes, false)
		b.bar.SetCurrent(min(s.DoneBytes, s.TotalBytes))
	}
}

func (b *imageBar) end() {
	if b.bar != nil {
		b.bar.Abort(true)
	}
}

// maxNameRunes leaves room for the bar and the numbers in 100 columns.
const maxNameRunes = 40

// shortName keeps the end of an image's name, which tells images apart.
func shortName(name string) string {
	if runes := []rune(name); len(runes) > maxNameRunes {
		return "…" + string(runes[len(runes)-maxNameRunes+1:])
	}
	return name
}

// numbers are what stands behind the bar.
func numbers(s prepull.ImageStatus) string {
	if s.Error != "" {
		return "trying again: " + s.Error
	}
	if s.TotalBytes == 0 {
		return "resolving"
	}
	return size(s.DoneBytes) + " of " + size(s.TotalBytes)
}
