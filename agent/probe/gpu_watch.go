package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"sync"
	"time"

	"headstart.dev/agent/probe/nvml"
)

// followRetry is how soon a follower of the driver's events that has ended is started again. It ends at once while there
// is no driver, and starting a process is dear during a boot.
const followRetry = 10 * time.Second

// Watch sees device files, validations, plugins and the kubelet's sockets come, and follows the driver's own events.
func (p *GPU) Watch(ctx context.Context, wake func()) error {
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	following.Go(func() {
		for {
			p.followEvents(ctx, wake)
			if !wait(ctx, followRetry, nil) {
				return
			}
		}
	})
	return watchDirs(ctx, wake, p.ValidationsDir, filepath.Join(p.KubeletDir, "device-plugins"), filepath.Join(p.KubeletDir, "pod-resources"))
}

// followEvents reads one child's events until it ends.
func (p *GPU) followEvents(ctx context.Context, wake func()) {
	events, output := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(events)
		for lines.Scan() {
			var event nvml.Event
			if json.Unmarshal(lines.Bytes(), &event) == nil && event.Critical() {
				p.record(event)
				wake()
			}
		}
		// A line without end: the child is no follower.
		_ = events.CloseWithError(lines.Err())
	}()
	command := isolated(ctx, p.FollowCommand)
	command.Stdout = output
	var follower child
	// It ends with ctx; one that hangs in the kernel is left to the kernel.
	_ = follower.run(ctx, command)
	_ = output.Close()
	<-read
}

func (p *GPU) record(event nvml.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults == nil {
		p.faults = map[string]uint64{}
	}
	p.faults[event.UUID] = event.XID
}
