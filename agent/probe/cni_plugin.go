package probe

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
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

// typeOfPlugin is the other way round.
func typeOfPlugin(plugin string) (string, bool) {
	for name, of := range pluginOfType {
		if of == plugin {
			return name, true
		}
	}
	return "", false
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

	// elsewhere says that an address was given: then it says nothing of who else is on the node.
	elsewhere bool
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

// WithAddress returns the endpoints of a plugin that answers elsewhere: at a URL, on a socket (unix:///path), or at
// host:port. It alone counts then.
func (e PluginEndpoints) WithAddress(address string) PluginEndpoints {
	socket, isSocket := strings.CutPrefix(address, "unix://")
	e.elsewhere = address != ""
	switch {
	case address == "":
	case isSocket:
		e.VPCCNISocket, e.VPCCNIAddress = socket, address
		e.CiliumSocket, e.CiliumURL = socket, ""
		e.CalicoURL = ""
	case strings.Contains(address, "://"):
		e.CiliumURL, e.CiliumSocket, e.CalicoURL = address, "", address
	default:
		e.VPCCNISocket, e.VPCCNIAddress = "", address
		e.CiliumURL, e.CiliumSocket = "http://"+address+"/healthz", ""
		e.CalicoURL = "http://" + address + "/readiness"
	}
	return e
}

// check asks one plugin. A plugin without a signal of its own is ready.
func (e PluginEndpoints) check(ctx context.Context, plugin string) Result {
	switch plugin {
	case PluginVPCCNI:
		return e.checkVPCCNI(ctx)
	case PluginCilium:
		return e.checkCilium(ctx)
	case PluginCalico:
		return eachLoopback(e.CalicoURL, func(url string) Result { return (&HTTP{URL: url}).Check(ctx) })
	}
	return ready("")
}

// eachLoopback tries IPv6's loopback address where nobody listens on IPv4's: on a node that has IPv6 alone "localhost" is
// that one.
func eachLoopback(address string, check func(address string) Result) Result {
	result := check(address)
	if other := strings.Replace(address, "127.0.0.1", "[::1]", 1); result.Reason == ReasonUnreachable && other != address {
		if second := check(other); second.Reason != ReasonUnreachable {
			return second
		}
	}
	return result
}

// vpcCNIService is the name under which ipamd serves its health; older ones know only "".
const vpcCNIService = "grpc.health.v1.aws-node"

func (e PluginEndpoints) checkVPCCNI(ctx context.Context) Result {
	address := e.VPCCNIAddress
	if _, err := os.Stat(e.VPCCNISocket); err == nil {
		address = "unix://" + e.VPCCNISocket
	}
	result := eachLoopback(address, func(address string) Result {
		result := (&GRPC{Address: address, Service: vpcCNIService}).Check(ctx)
		if result.Reason == ReasonInvalid {
			result = (&GRPC{Address: address}).Check(ctx)
		}
		return result
	})
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

// ciliumRuns says whether Cilium's agent has been on this node since it booted: its folder is on a tmpfs.
func (e PluginEndpoints) ciliumRuns() bool {
	if e.elsewhere || e.CiliumSocket == "" {
		return false
	}
	_, err := os.Stat(e.CiliumSocket)
	return err == nil
}

func (e PluginEndpoints) checkCilium(ctx context.Context) Result {
	result := notReady(ReasonUnreachable, "Cilium's agent does not answer on %s", e.CiliumSocket)
	if e.CiliumURL != "" {
		result = eachLoopback(e.CiliumURL, func(url string) Result {
			code, body, err := get(ctx, url, "")
			if err != nil {
				return httpFailure(url, err)
			}
			return ciliumHealth(code, body)
		})
	}
	if result.Status == True || result.Reason != ReasonUnreachable || e.CiliumSocket == "" {
		return result
	}
	// The health port is configurable and may be off; the agent's API socket is always there.
	code, body, err := get(ctx, "http://localhost/v1/healthz", e.CiliumSocket, "brief")
	if err != nil {
		return result
	}
	return ciliumHealth(code, body)
}

// ciliumHealth reads an answer of Cilium's agent. Its API answers 200 whatever it has to say; the state in the body is
// what counts. Source: cilium/cilium api/v1/models/status_response.go and status.go@v1.18.
func ciliumHealth(code int, body []byte) Result {
	if code != http.StatusOK {
		return notReady(ReasonUnhealthy, "Cilium's agent answered %d", code)
	}
	var answer struct {
		Cilium struct {
			State string `json:"state"`
			Msg   string `json:"msg"`
		} `json:"cilium"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return ready("")
	}
	switch state := answer.Cilium.State; state {
	case "", "Ok", "Disabled":
		return ready("")
	default:
		return notReady(ReasonUnhealthy, "Cilium's agent says %s: %s", state, answer.Cilium.Msg)
	}
}
