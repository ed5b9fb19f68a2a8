package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	ReasonPluginNotLoaded = "PluginNotLoaded"
)

// RuntimeStatus reports the container runtime's own state.
type RuntimeStatus interface {
	State(ctx context.Context) (RuntimeState, error)
}

// CNI is ready when the container runtime has loaded a network config, the plugin that is asked for is in it, and the
// plugins in it say of themselves that they can serve pods. What the runtime says counts; the folder of configs is read
// only to say what is wrong with it, and where the runtime does not tell what it has loaded.
type CNI struct {
	// ConfDir is where the plugin's conflist appears, /etc/cni/net.d.
	ConfDir string
	// Plugin is auto (found from what is loaded), aws-vpc-cni, cilium, calico or generic (no signal of its own).
	Plugin string
	// Runtime is the container runtime that loads the config.
	Runtime RuntimeStatus
	// Endpoints are where the plugins answer.
	Endpoints PluginEndpoints
}

// Check looks at the runtime, then at the plugin: in the order in which they come up, so that the message names what is
// really waited for.
func (p *CNI) Check(ctx context.Context) Result {
	state, result := p.checkRuntime(ctx)
	if result.Status != True {
		// A config that no runtime can load has to be mended as well, and can be now.
		if _, disk := p.onlyDisk(); disk.Status != True {
			return disk
		}
		return result
	}
	networks, result := p.networks(state)
	if result.Status != True {
		return result
	}
	plugins, result := p.plugins(networks)
	if result.Status != True {
		return result
	}
	for _, plugin := range plugins {
		if result := p.Endpoints.check(ctx, plugin); result.Status != True {
			return result
		}
	}
	if len(networks) == 0 {
		return ready("the container runtime's network is up")
	}
	return ready("network %q is up", networks[0].Name)
}

// Watch sees config files come and go.
func (p *CNI) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, p.ConfDir)
}

func (p *CNI) checkRuntime(ctx context.Context) (RuntimeState, Result) {
	state, err := p.Runtime.State(ctx)
	if err != nil {
		if code := status.Code(err); code == codes.DeadlineExceeded || isTimeout(err) {
			return state, notReady(ReasonTimeout, "the container runtime did not answer in time")
		}
		return state, notReady(ReasonRuntimeNotReady, "%v", err)
	}
	if c := state.Conditions[runtimeapi.RuntimeReady]; !c.GetStatus() {
		return state, notReady(ReasonRuntimeNotReady, "the container runtime is not ready: %s %s", c.GetReason(), c.GetMessage())
	}
	return state, ready("")
}

// networks are those that the runtime has loaded. Where it does not tell, it is taken at its word that its network is
// ready, and the folder says which.
func (p *CNI) networks(state RuntimeState) ([]CNINetwork, Result) {
	c := state.Conditions[runtimeapi.NetworkReady]
	switch {
	case !c.GetStatus():
		return nil, p.advise(state.CNI, strings.TrimSpace(c.GetReason()+" "+c.GetMessage()))
	case state.CNI != nil:
		return state.CNI.Networks, ready("")
	}
	return p.onlyDisk()
}

// onlyDisk is the network of the first config in the folder that is good.
func (p *CNI) onlyDisk() ([]CNINetwork, Result) {
	network, err := LoadCNIConfig(p.ConfDir)
	switch {
	case errors.Is(err, errNoConfig):
		return nil, notReady(ReasonNoConfig, "no CNI config in %s yet", p.ConfDir)
	case err != nil:
		return nil, notReady(ReasonInvalidConfig, "%v", err)
	}
	return []CNINetwork{network}, ready("")
}

// plugins returns those whose own signal counts. A chain (Cilium on top of the VPC CNI) has several, and so has a plugin
// that delegates (Multus).
func (p *CNI) plugins(networks []CNINetwork) ([]string, Result) {
	var types []string
	for _, network := range networks {
		types = append(types, network.types(p.ConfDir)...)
	}
	var loaded []string
	for _, name := range types {
		if plugin, ok := pluginOfType[name]; ok && !slices.Contains(loaded, plugin) {
			loaded = append(loaded, plugin)
		}
	}
	wanted := p.Plugin
	switch {
	case wanted == PluginAuto && !slices.Contains(loaded, PluginCilium) && p.Endpoints.ciliumRuns():
		// Its agent is on this node, and is about to put itself on top of the plugin that is loaded.
		wanted = PluginCilium
	case wanted == PluginAuto:
		return loaded, ready("")
	}
	if _, known := typeOfPlugin(wanted); known && !slices.Contains(loaded, wanted) {
		return nil, notReady(ReasonPluginNotLoaded, "the container runtime has loaded %s, and not %s%s", describe(networks, types), wanted, p.onDisk(wanted))
	}
	if wanted == PluginCilium && slices.Contains(loaded, PluginVPCCNI) {
		return []string{PluginVPCCNI, PluginCilium}, ready("") // it is chained
	}
	return []string{wanted}, ready("")
}

func describe(networks []CNINetwork, types []string) string {
	if len(networks) == 0 {
		return "no network"
	}
	return fmt.Sprintf("network %q (%s)", networks[0].Name, strings.Join(types, ", "))
}
