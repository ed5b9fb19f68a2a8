package probe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Reasons of the CSI probe.
const (
	ReasonDriverNotReady = "DriverNotReady"
	ReasonNotRegistered  = "NotRegistered"
)

// ErrNoAPI means that there is no API server to ask.
var ErrNoAPI = errors.New("no way to the API server is configured")

// Registrations knows which CSI drivers the kubelet of this node has registered. Its methods may be called by several
// goroutines at once.
type Registrations interface {
	// Registered asks whether the node's CSINode has a driver; ErrNoAPI where there is nobody to ask.
	Registered(ctx context.Context, driver string) (bool, error)
	// Changed returns what earlier answers belong to, and a channel that is closed when it changes.
	Changed() (epoch string, next <-chan struct{})
}

// CSI is ready when every driver offers itself to the kubelet, answers under its own name where it said that it would,
// says that it is ready, and the kubelet has taken it: only then can a pod's volume be mounted.
type CSI struct {
	Drivers []string
	// KubeletDir is the kubelet's root folder, /var/lib/kubelet.
	KubeletDir string
	// Registrations tells what the kubelet has registered; nil where nobody does.
	Registrations Registrations

	answers answers
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

// Watch sees sockets come and go, and registrations.
func (p *CSI) Watch(ctx context.Context, wake func()) error {
	dirs := []string{filepath.Join(p.KubeletDir, registryDir)}
	for _, driver := range p.Drivers {
		dirs = append(dirs, filepath.Dir(p.socket(driver)))
	}
	if p.Registrations == nil {
		return watchDirs(ctx, wake, dirs...)
	}
	return watchWith(ctx, wake, p.Registrations.Changed, dirs...)
}

// socket is where a driver answers that keeps to the convention.
func (p *CSI) socket(driver string) string {
	return filepath.Join(p.KubeletDir, "plugins", driver, "csi.sock")
}

func (p *CSI) checkDriver(ctx context.Context, driver string) Result {
	registration, result := findRegistration(ctx, p.KubeletDir, registerapi.CSIPlugin, driver)
	if result.Status != True {
		// The driver comes before its registrar: say which of the two is waited for.
		if identity := checkIdentity(ctx, p.socket(driver), driver); identity.Status != True && result.Reason != ReasonTimeout {
			return identity
		}
		return result
	}
	if result := checkIdentity(ctx, p.endpoint(registration, driver), driver); result.Status != True {
		return result
	}
	return p.checkRegistered(ctx, registration, driver)
}

// endpoint is where the registration says that the driver answers; one that says nothing answers at the registration's
// own socket. Source: kubernetes pkg/kubelet/pluginmanager/operationexecutor/operation_generator.go@v1.37.2.
func (p *CSI) endpoint(r registration, driver string) string {
	if r.endpoint != "" {
		return r.endpoint
	}
	if _, err := os.Stat(p.socket(driver)); err == nil {
		return p.socket(driver)
	}
	return r.socket
}

func checkIdentity(ctx context.Context, socket, driver string) Result {
	address := "unix://" + socket
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

// checkRegistered asks whether the kubelet has taken the driver: once it has, not again until the registration's socket
// or the Node is another.
func (p *CSI) checkRegistered(ctx context.Context, r registration, driver string) Result {
	epoch := ""
	if p.Registrations != nil {
		epoch, _ = p.Registrations.Changed()
	}
	return p.answers.ask(driver, epoch+"\n"+r.identity, func() Result { return p.askRegistered(ctx, driver) })
}

func (p *CSI) askRegistered(ctx context.Context, driver string) Result {
	registered, err := false, ErrNoAPI
	if p.Registrations != nil {
		registered, err = p.Registrations.Registered(ctx, driver)
	}
	switch {
	case errors.Is(err, ErrNoAPI):
		// A kubelet that runs takes what is offered to it within a second.
		return checkKubelet(ctx, p.KubeletDir)
	case err != nil:
		return notReady(ReasonNotRegistered, "the API server cannot be asked whether the kubelet has registered it: %v", err)
	case !registered:
		return notReady(ReasonNotRegistered, "the kubelet has not registered it: this node's CSINode does not have it")
	}
	return ready("")
}

// checkKubelet looks for a kubelet that listens in its folder, whatever its process is called.
func checkKubelet(ctx context.Context, dir string) Result {
	for _, socket := range []string{"pod-resources/kubelet.sock", "device-plugins/kubelet.sock"} {
		if conn, err := dial(ctx, "unix://"+filepath.Join(dir, socket)); err == nil {
			_ = conn.Close()
			return ready("")
		}
	}
	return notReady(ReasonNotRegistered, "no kubelet listens in %s, so nobody has registered it", strings.TrimSuffix(dir, "/"))
}
