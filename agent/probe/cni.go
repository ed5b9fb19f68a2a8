package probe

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Reasons of the CNI probe.
const (
	ReasonNoConfig        = "NoCNIConfig"
	ReasonInvalidConfig   = "InvalidCNIConfig"
	ReasonRuntimeNotReady = "RuntimeNotReady"
	ReasonNetworkNotReady = "NetworkNotReady"
)

// maxConfigBytes bounds a CNI config file; real ones have a few KiB.
const maxConfigBytes = 1 << 20

// RuntimeStatus reports the container runtime's own conditions.
type RuntimeStatus interface {
	Conditions(ctx context.Context) (RuntimeConditions, error)
}

// CNI is ready when a config in ConfDir parses, the container runtime has loaded one, and the plugin itself says that
// it can serve pods.
type CNI struct {
	// ConfDir is where the plugin's conflist appears, /etc/cni/net.d.
	ConfDir string
	// Plugin is auto (found from the conflist), aws-vpc-cni, cilium, calico or generic (no signal of its own).
	Plugin string
	// Runtime is the container runtime that loads the config.
	Runtime RuntimeStatus
	// Endpoints are where the plugins answer.
	Endpoints PluginEndpoints
}

// Check looks at the config, then at the runtime, then at the plugin: in the order in which they come up, so that the
// message names what is really waited for.
func (p *CNI) Check(ctx context.Context) Result {
	config, err := LoadCNIConfig(p.ConfDir)
	switch {
	case errors.Is(err, errNoConfig):
		return notReady(ReasonNoConfig, "no CNI config in %s yet", p.ConfDir)
	case err != nil:
		return notReady(ReasonInvalidConfig, "%v", err)
	}
	if result := p.checkRuntime(ctx); result.Status != True {
		return result
	}
	for _, plugin := range p.plugins(config) {
		if result := p.Endpoints.check(ctx, plugin); result.Status != True {
			return result
		}
	}
	return ready("network %q is up", config.Name)
}

// Watch sees config files come and go.
func (p *CNI) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, p.ConfDir)
}

func (p *CNI) checkRuntime(ctx context.Context) Result {
	conditions, err := p.Runtime.Conditions(ctx)
	if err != nil {
		if code := status.Code(err); code == codes.DeadlineExceeded || isTimeout(err) {
			return notReady(ReasonTimeout, "the container runtime did not answer in time")
		}
		return notReady(ReasonRuntimeNotReady, "%v", err)
	}
	if c := conditions[runtimeapi.RuntimeReady]; !c.GetStatus() {
		return notReady(ReasonRuntimeNotReady, "the container runtime is not ready: %s %s", c.GetReason(), c.GetMessage())
	}
	if c := conditions[runtimeapi.NetworkReady]; !c.GetStatus() {
		return notReady(ReasonNetworkNotReady, "the container runtime's network is not ready: %s %s", c.GetReason(), c.GetMessage())
	}
	return ready("")
}

var errNoConfig = errors.New("no CNI config")

// LoadCNIConfig returns the config that the container runtime takes: the first in alphabetical order that parses. With
// files of which none parses, the error says what is wrong with the first.
func LoadCNIConfig(dir string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) == 0 {
		return nil, errNoConfig
	}
	var firstErr error
	for _, file := range files {
		config, err := loadCNIFile(file)
		if err == nil {
			return config, nil
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return nil, firstErr
}

func loadCNIFile(file string) (*libcni.NetworkConfigList, error) {
	raw, err := readRegular(file, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	config, err := ParseCNIConfig(raw, filepath.Ext(file) == ".conflist")
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}
	return config, nil
}

// ParseCNIConfig parses a conflist, or a single plugin's config, as the container runtime does. A list of no plugins is
// an error.
func ParseCNIConfig(raw []byte, list bool) (*libcni.NetworkConfigList, error) {
	var config *libcni.NetworkConfigList
	if list {
		parsed, err := libcni.NetworkConfFromBytes(raw)
		if err != nil {
			return nil, err
		}
		config = parsed
	} else {
		single, err := libcni.NetworkPluginConfFromBytes(raw)
		if err != nil {
			return nil, err
		}
		if single.Network.Type == "" {
			return nil, errors.New(`missing "type" (is it a list? then name it .conflist)`)
		}
		if config, err = libcni.ConfListFromConf(single); err != nil { //nolint:staticcheck // containerd still takes single configs
			return nil, err
		}
	}
	if len(config.Plugins) == 0 {
		return nil, errors.New("the list names no plugin")
	}
	return config, nil
}
