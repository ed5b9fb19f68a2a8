package probe

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// ReasonNotPublished means that a driver runs and has not told the cluster of its devices.
const ReasonNotPublished = "NotPublished"

// Slices knows what DRA drivers have published for this node. Its methods may be called by several goroutines at once.
type Slices interface {
	// Devices counts those in the ResourceSlices of a driver for this node; complete says that none of its pools lacks a
	// slice. ErrNoAPI where there is nobody to ask.
	Devices(ctx context.Context, driver string) (devices int, complete bool, err error)
	// Changed is as that of Registrations.
	Changed() (epoch string, next <-chan struct{})
}

// DRA is ready when every driver of dynamic resource allocation offers itself to the kubelet, and has published its
// devices of this node: only then can the scheduler hand them out.
type DRA struct {
	Drivers []string
	// KubeletDir is the kubelet's root folder.
	KubeletDir string
	Slices     Slices

	answers answers
}

// Check looks at all drivers at once, and reports the first in the order of Drivers that is not ready.
func (p *DRA) Check(ctx context.Context) Result {
	results := make([]Result, len(p.Drivers))
	var looking sync.WaitGroup
	for i, driver := range p.Drivers {
		looking.Go(func() { results[i] = p.checkDriver(ctx, driver) })
	}
	looking.Wait()
	for i, result := range results {
		if result.Status != True {
			return notReady(result.Reason, "driver %s: %s", p.Drivers[i], result.Message)
		}
	}
	return ready("%s", results[0].Message)
}

// Watch sees registrations come and go.
func (p *DRA) Watch(ctx context.Context, wake func()) error {
	return watchWith(ctx, wake, p.Slices.Changed, filepath.Join(p.KubeletDir, registryDir))
}

func (p *DRA) checkDriver(ctx context.Context, driver string) Result {
	registration, result := findRegistration(ctx, p.KubeletDir, registerapi.DRAPlugin, driver)
	if result.Status != True {
		return result
	}
	epoch, _ := p.Slices.Changed()
	return p.answers.ask(driver, epoch+"\n"+registration.identity, func() Result { return p.askSlices(ctx, driver) })
}

func (p *DRA) askSlices(ctx context.Context, driver string) Result {
	devices, complete, err := p.Slices.Devices(ctx, driver)
	switch {
	case errors.Is(err, ErrNoAPI):
		return notReady(ReasonNotPublished, "ResourceSlices are in the API server, and %v: set kubeconfig", err)
	case err != nil:
		return notReady(ReasonNotPublished, "its ResourceSlices cannot be read: %v", err)
	case devices == 0:
		return notReady(ReasonNotPublished, "it has published no device of this node (ResourceSlices)")
	case !complete:
		return notReady(ReasonNotPublished, "it has published %d devices of this node, and not all of its ResourceSlices yet", devices)
	}
	return ready("%d devices are published", devices)
}
