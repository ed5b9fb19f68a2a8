package probe

import (
	"context"
	"encoding/json"
	"net/http"
	"os"

	"github.com/containernetworking/cni/libcni"
)

// The CNI plugins that have a signal of their own.
const (
	PluginAuto   = "auto"
	PluginVPCCNI = "aws-vpc-cni"
	PluginCilium = "cilium"
	PluginCalico = "calico"
)

// ReasonNoFreeAddress means that the plugin works and has no address left for a pod.
const ReasonNoFreeAddress = "NoFreeAddress"

// pluginOfType maps the "type" of a plugin in a conflist to the plugin whose daemon must be up.
var pluginOfType = map[string]string{"aws-cni": PluginVPCCNI, "cilium-cni": PluginCilium, "calico": PluginCalico}

// plugins returns those whose own signal counts. A chain (Cilium on top of the VPC CNI) has several.
func (p *CNI) plugins(config *libcni.NetworkConfigList) []string {
	if p.Plugin != PluginAuto {
		return []string{p.Plugin}
	}
	var found []string
	for _, plugin := range config.Plugins {
		if name, ok := pluginOfType[plugin.Network.Type]; ok {
			found = append(found, name)
		}
	}
	return found
}

// PluginEndpoints are where the plugins' daemons answer on a node.
type PluginEndpoints struct {
	// VPCCNISocket is ipamd's gRPC socket since v1.23, VPCCNIAddress its gRPC address before.
	// Source: aws/amazon-vpc-cni-k8s pkg/ipamd/rpc_handler.go@v1.23.0.
	VPCCNISocket, VPCCNIAddress string
	// VPCCNIIntrospection is the URL that lists network interfaces and their addresses; it may be turned off.
	VPCCNIIntrospection string
	// CiliumURL and CiliumSocket serve the agent's health; either may be turned off.
	CiliumURL, CiliumSocket string
	// CalicoURL serves Felix's readiness.
	CalicoURL string
}

// DefaultPluginEndpoints is where the plugins' own manifests put them.
func DefaultPluginEndpoints() PluginEndpoints {
	return PluginEndpoints{
		VPCCNISocket:        "/var/run/aws-node/ipamd.sock",
		VPCCNIAddress:       "127.0.0.1:50051",
		VPCCNIIntrospection: "http://127.0.0.1:61679/v1/enis",
		CiliumURL:           "http://127.0.0.1:9879/healthz",
		CiliumSocket:        "/var/run/cilium/cilium.sock",
		CalicoURL:           "http://127.0.0.1:9099/readiness",
	}
}

// check asks one plugin. A plugin without a signal of its own is ready.
func (e PluginEndpoints) check(ctx context.Context, plugin string) Result {
	switch plugin {
	case PluginVPCCNI:
		return e.checkVPCCNI(ctx)
	case PluginCilium:
		return e.checkCilium(ctx)
	case PluginCalico:
		return (&HTTP{URL: e.CalicoURL}).Check(ctx)
	}
	return ready("")
}

// vpcCNIService is the name under which ipamd serves its health; older ones know only "".
const vpcCNIService = "grpc.health.v1.aws-node"

func (e PluginEndpoints) checkVPCCNI(ctx context.Context) Result {
	address := e.VPCCNIAddress
	if _, err := os.Stat(e.VPCCNISocket); err == nil {
		address = "unix://" + e.VPCCNISocket
	}
	result := (&GRPC{Address: address, Service: vpcCNIService}).Check(ctx)
	if result.Reason == ReasonInvalid {
		result = (&GRPC{Address: address}).Check(ctx)
	}
	if result.Status != True {
		return result
	}
	return e.checkFreeAddress(ctx)
}

// checkFreeAddress counts only where introspection answers: it may be turned off.
func (e PluginEndpoints) checkFreeAddress(ctx context.Context) Result {
	code, body, err := get(ctx, e.VPCCNIIntrospection, "")
	if err != nil || code != http.StatusOK {
		return ready("")
	}
	// Source: aws/amazon-vpc-cni-k8s pkg/ipamd/datastore ENIInfos.
	var pool struct {
		TotalIPs, AssignedIPs int
	}
	if json.Unmarshal(body, &pool) == nil && pool.TotalIPs <= pool.AssignedIPs {
		return notReady(ReasonNoFreeAddress, "the VPC CNI has no free address: %d of %d are taken", pool.AssignedIPs, pool.TotalIPs)
	}
	return ready("")
}

func (e PluginEndpoints) checkCilium(ctx context.Context) Result {
	result := (&HTTP{URL: e.CiliumURL}).Check(ctx)
	if result.Status == True || result.Reason != ReasonUnreachable {
		return result
	}
	// The health port is configurable and may be off; the agent's API socket is always there.
	code, _, err := get(ctx, "http://localhost/v1/healthz", e.CiliumSocket)
	if err != nil {
		return result
	}
	if code != http.StatusOK {
		return notReady(ReasonUnhealthy, "Cilium's agent answered %d", code)
	}
	return ready("")
}
