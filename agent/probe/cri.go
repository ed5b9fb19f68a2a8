package probe

import (
	"context"
	"encoding/json"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RuntimeState is what a CRI runtime reports of itself.
type RuntimeState struct {
	// Conditions by their type.
	Conditions map[string]*runtimeapi.RuntimeCondition
	// CNI is what it has loaded; nil where it does not tell, as CRI-O.
	CNI *LoadedCNI
}

// LoadedCNI is the network config that a runtime works with, whatever lies on the disk.
type LoadedCNI struct {
	// ConfDir is the folder that it reads.
	ConfDir string
	// Networks are those of pods; the loopback's is left out.
	Networks []CNINetwork
	// Failure is why the last reading of the folder failed, or "".
	Failure string
}

// CNINetwork is one network config.
type CNINetwork struct {
	Name string
	// Plugins are the configs of the plugins, as JSON, in the order of the chain.
	Plugins [][]byte
}

// CRI reads a container runtime's own view of its readiness.
type CRI struct {
	// Address is the path of the runtime's socket.
	Address string
}

// State asks once.
func (c *CRI) State(ctx context.Context) (RuntimeState, error) {
	conn, err := dialGRPC(ctx, "unix://"+c.Address)
	if err != nil {
		return RuntimeState{}, fmt.Errorf("ask the container runtime: %w", err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return RuntimeState{}, fmt.Errorf("ask the container runtime: %w", err)
	}
	out := RuntimeState{Conditions: map[string]*runtimeapi.RuntimeCondition{}, CNI: ParseLoadedCNI(answer.GetInfo())}
	for _, condition := range answer.GetStatus().GetConditions() {
		out.Conditions[condition.GetType()] = condition
	}
	return out, nil
}

// ParseLoadedCNI reads containerd's verbose status; nil where it is not that.
// Source: containerd internal/cri/server/status.go@v2.4.2 and containerd/go-cni cni.go@v1.1.14 ConfigResult.
func ParseLoadedCNI(info map[string]string) *LoadedCNI {
	var config struct {
		PluginConfDir string
		Networks      []struct {
			IFName string
			Config *struct {
				Name    string
				Plugins []struct{ Source string }
			}
		}
	}
	if text := info["cniconfig"]; text == "" || json.Unmarshal([]byte(text), &config) != nil {
		return nil
	}
	out := &LoadedCNI{ConfDir: config.PluginConfDir}
	if status := info["lastCNILoadStatus"]; status != "OK" {
		out.Failure = status
	}
	for _, network := range config.Networks {
		if network.Config == nil || network.IFName == "lo" {
			continue
		}
		loaded := CNINetwork{Name: network.Config.Name}
		for _, plugin := range network.Config.Plugins {
			loaded.Plugins = append(loaded.Plugins, []byte(plugin.Source))
		}
		out.Networks = append(out.Networks, loaded)
	}
	return out
}
