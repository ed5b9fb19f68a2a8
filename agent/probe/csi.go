package probe

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Reasons of the CSI probe.
const (
	ReasonDriverNotReady = "DriverNotReady"
	ReasonNotRegistered  = "NotRegistered"
)

// CSI is ready when every driver answers on its socket under its own name, says that it is ready, and offers itself to
// the kubelet. That the kubelet has taken it shows in CSINode, which is the controller's to look at.
type CSI struct {
	Drivers []string
	// KubeletDir is the kubelet's root folder, /var/lib/kubelet.
	KubeletDir string
}

// Check looks at all drivers at once, so that one that hangs does not hide the others, and reports the first in the
// order of Drivers that is not ready.
func (p *CSI) Check(ctx context.Context) Result {
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
	if len(p.Drivers) == 1 {
		return ready("driver %s is ready", p.Drivers[0])
	}
	return ready("%d drivers are ready", len(p.Drivers))
}

// Watch sees sockets come and go.
func (p *CSI) Watch(ctx context.Context, wake func()) error {
	dirs := []string{filepath.Join(p.KubeletDir, "plugins_registry")}
	for _, driver := range p.Drivers {
		dirs = append(dirs, filepath.Dir(p.socket(driver)))
	}
	return watchDirs(ctx, wake, dirs...)
}

func (p *CSI) socket(driver string) string {
	return filepath.Join(p.KubeletDir, "plugins", driver, "csi.sock")
}

func (p *CSI) registrationSocket(driver string) string {
	return filepath.Join(p.KubeletDir, "plugins_registry", driver+"-reg.sock")
}

func (p *CSI) checkDriver(ctx context.Context, driver string) Result {
	if result := p.checkIdentity(ctx, driver); result.Status != True {
		return result
	}
	return p.checkRegistration(ctx, driver)
}

func (p *CSI) checkIdentity(ctx context.Context, driver string) Result {
	address := "unix://" + p.socket(driver)
	conn, err := dialGRPC(ctx, address)
	if err != nil {
		return dialFailure(address, err)
	}
	defer func() { _ = conn.Close() }()
	identity := csi.NewIdentityClient(conn)
	info, err := identity.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return grpcFailure(address, err)
	}
	if info.GetName() != driver {
		return notReady(ReasonInvalid, "%s is the socket of %q", address, info.GetName())
	}
	answer, err := identity.Probe(ctx, &csi.ProbeRequest{})
	if err != nil {
		return grpcFailure(address, err)
	}
	// The CSI specification: a driver that leaves ready out is ready.
	if answer.GetReady() != nil && !answer.GetReady().GetValue() {
		return notReady(ReasonDriverNotReady, "it says that it is not ready")
	}
	return ready("")
}

func (p *CSI) checkRegistration(ctx context.Context, driver string) Result {
	address := "unix://" + p.registrationSocket(driver)
	conn, err := dialGRPC(ctx, address)
	if err != nil {
		return notReady(ReasonNotRegistered, "%s", dialFailure(address, err).Message)
	}
	defer func() { _ = conn.Close() }()
	info, err := registerapi.NewRegistrationClient(conn).GetInfo(ctx, &registerapi.InfoRequest{})
	if err != nil {
		return grpcFailure(address, err)
	}
	if info.GetType() != registerapi.CSIPlugin || info.GetName() != driver {
		return notReady(ReasonNotRegistered, "%s registers %s %q", address, info.GetType(), info.GetName())
	}
	return ready("")
}
