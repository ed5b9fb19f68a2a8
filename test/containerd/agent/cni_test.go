package agent_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/agent/probe"
	"headstart.dev/test/testenv"
)

// daemons are the plugins' own daemons, all of them well. They note who was asked.
type daemons struct {
	healthpb.UnimplementedHealthServer
	mu    sync.Mutex
	asked []string
}

func (d *daemons) note(plugin string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.asked, plugin) {
		d.asked = append(d.asked, plugin)
	}
}

// take returns who was asked since the last time.
func (d *daemons) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.asked
	d.asked = nil
	slices.Sort(asked)
	return asked
}

func (d *daemons) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	d.note(probe.PluginVPCCNI)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func startDaemons(t *testing.T) (*daemons, probe.PluginEndpoints) {
	t.Helper()
	d := &daemons{}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ipamd := grpc.NewServer()
	healthpb.RegisterHealthServer(ipamd, d)
	var serving sync.WaitGroup
	serving.Go(func() { _ = ipamd.Serve(listener) })
	t.Cleanup(func() { ipamd.Stop(); serving.Wait() })
	others := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { d.note(strings.TrimPrefix(r.URL.Path, "/")) }))
	t.Cleanup(others.Close)
	return d, probe.PluginEndpoints{
		VPCCNIAddress: listener.Addr().String(), VPCCNIIntrospection: "http://127.0.0.1:1/",
		CiliumURL: others.URL + "/" + probe.PluginCilium, CalicoURL: others.URL + "/" + probe.PluginCalico,
	}
}

// list is a conflist of plugins that are given as JSON, or by their type alone.
func list(version, name string, plugins ...string) string {
	for i, plugin := range plugins {
		if !strings.HasPrefix(plugin, "{") {
			plugins[i] = fmt.Sprintf(`{"type":%q}`, plugin)
		}
	}
	return fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[%s]}`, version, name, strings.Join(plugins, ","))
}

// confSet is what lies in /etc/cni/net.d of a node.
type confSet struct {
	files map[string]string
	// network is the one that containerd works with then; "" for none, and reason and says are what the probe says of it.
	network, reason, says string
	// asks are the plugins whose own signal counts.
	asks []string
}

const (
	vpc, cilium, calico = probe.PluginVPCCNI, probe.PluginCilium, probe.PluginCalico
	portmap             = `{"type":"portmap","capabilities":{"portMappings":true},"snat":true}`
	awsCNI              = `{"name":"aws-cni","type":"aws-cni","vethPrefix":"eni","mtu":"9001","pluginLogFile":"/var/log/aws-routed-eni/plugin.log","pluginLogLevel":"DEBUG","capabilities":{"io.kubernetes.cri.pod-annotations":true}}`
	egressCNI           = `{"name":"egress-cni","type":"egress-cni","enabled":"false","ipam":{"type":"host-local","ranges":[[{"subnet":"fd00::ac:00/118"}]]}}`
	calicoPlugin        = `{"type":"calico","log_level":"info","datastore_type":"kubernetes","mtu":0,"ipam":{"type":"calico-ipam"},"policy":{"type":"k8s"},"kubernetes":{"kubeconfig":"/etc/cni/net.d/calico-kubeconfig"}}`
	flannelPlugin       = `{"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`
	istioCNI            = `{"type":"istio-cni","log_level":"info","kubernetes":{"cni_bin_dir":"/opt/cni/bin"}}`
	bandwidth           = `{"type":"bandwidth","capabilities":{"bandwidth":true}}`
	multusThin          = `{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus","kubeconfig":"/etc/cni/net.d/multus.d/multus.kubeconfig","delegates":[%s]}`
	multusThick         = `{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus-shim","logToStderr":true%s}`
)

func awsList() string { return list("0.4.0", "aws-cni", awsCNI, egressCNI, portmap) }
func ciliumList() string {
	return list("0.3.1", "cilium", `{"type":"cilium-cni","enable-debug":false}`)
}

func calicoList() string {
	return list("0.3.1", "k8s-pod-network", calicoPlugin, portmap, bandwidth)
}

// confSets are the sets of the field: the manifests of plugins, their chains, and what goes wrong with files.
func confSets() map[string]confSet {
	one := func(file, content, network string, asks ...string) confSet {
		return confSet{files: map[string]string{file: content}, network: network, asks: asks}
	}
	sets := map[string]confSet{
		"VPC CNI":                    one("10-aws.conflist", awsList(), "aws-cni", vpc),
		"VPC CNI, cniVersion 1.0.0":  one("10-aws.conflist", list("1.0.0", "aws-cni", awsCNI, portmap), "aws-cni", vpc),
		"Cilium":                     one("05-cilium.conflist", ciliumList(), "cilium", cilium),
		"Cilium, single config":      one("05-cilium.conf", `{"cniVersion":"0.3.1","name":"cilium","type":"cilium-cni"}`, "cilium", cilium),
		"Cilium chained on VPC CNI":  one("05-cilium.conflist", list("0.4.0", "aws-cni", awsCNI, portmap, "cilium-cni"), "aws-cni", cilium, vpc),
		"Cilium chained on flannel":  one("05-cilium.conflist", list("0.3.1", "cilium", flannelPlugin, "cilium-cni"), "cilium", cilium),
		"Cilium on Azure's IPAM":     one("05-cilium.conflist", list("0.3.1", "cilium", `{"type":"cilium-cni","ipam":{"type":"azure-ipam"}}`), "cilium", cilium),
		"Calico":                     one("10-calico.conflist", calicoList(), "k8s-pod-network", calico),
		"Canal":                      one("10-canal.conflist", list("0.3.1", "k8s-pod-network", strings.Replace(calicoPlugin, "calico-ipam", "host-local", 1), portmap), "k8s-pod-network", calico),
		"Calico on AKS":              one("10-calico.conflist", list("0.3.1", "azure", `{"type":"azure-vnet","mode":"transparent","ipam":{"type":"azure-vnet-ipam"}}`, "portmap"), "azure"),
		"flannel":                    one("10-flannel.conflist", list("0.3.1", "cbr0", flannelPlugin, portmap), "cbr0"),
		"flannel of k3s":             one("10-flannel.conflist", list("1.0.0", "cbr0", `{"type":"flannel","delegate":{"hairpinMode":true,"forceAddress":true,"isDefaultGateway":true}}`, portmap, bandwidth), "cbr0"),
		"kube-router":                one("10-kuberouter.conflist", list("0.3.0", "mynet", `{"type":"bridge","name":"kubernetes","bridge":"kube-bridge","isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"host-local"}}`, portmap), "mynet"),
		"Antrea":                     one("10-antrea.conflist", list("0.3.0", "antrea", `{"type":"antrea","ipam":{"type":"host-local"}}`, portmap, bandwidth), "antrea"),
		"Azure CNI":                  one("10-azure.conflist", list("0.3.0", "azure", `{"type":"azure-vnet","mode":"transparent","ipsToRouteViaHost":["169.254.20.10"],"ipam":{"type":"azure-vnet-ipam"}}`, portmap), "azure"),
		"Azure CNI Overlay":          one("15-azure-swift-overlay.conflist", list("0.3.0", "azure", `{"type":"azure-vnet","mode":"transparent","executionMode":"v4overlay","ipam":{"mode":"v4overlay","type":"azure-cns"}}`, portmap), "azure"),
		"GKE, ptp":                   one("10-containerd-net.conflist", list("0.3.1", "k8s-pod-network", `{"type":"ptp","mtu":1460,"ipam":{"type":"host-local","subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}`, portmap), "k8s-pod-network"),
		"GKE Dataplane V2":           one("10-gke-ptp.conflist", list("0.3.1", "gke-pod-network", `{"type":"gke"}`, "cilium-cni", portmap), "gke-pod-network", cilium),
		"Weave Net":                  one("10-weave.conflist", list("0.3.0", "weave", `{"name":"weave","type":"weave-net","hairpinMode":true}`, portmap), "weave"),
		"OVN-Kubernetes":             one("10-ovn-kubernetes.conf", `{"cniVersion":"0.4.0","name":"ovn-kubernetes","type":"ovn-k8s-cni-overlay","ipam":{},"dns":{}}`, "ovn-kubernetes"),
		"kube-ovn":                   one("01-kube-ovn.conflist", list("0.3.1", "kube-ovn", `{"type":"kube-ovn","server_socket":"/run/openvswitch/kube-ovn-daemon.sock"}`, portmap), "kube-ovn"),
		"kindnet":                    one("10-kindnet.conflist", list("0.3.1", "kindnet", `{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"/run/cni-ipam-state"},"mtu":1500}`, portmap), "kindnet"),
		"Romana's bridge, as .json":  one("10-bridge.json", `{"cniVersion":"0.3.1","name":"bridge-net","type":"bridge","bridge":"cbr0","ipam":{"type":"host-local"}}`, "bridge-net"),
		"Istio chained on VPC CNI":   one("10-aws.conflist", list("0.4.0", "aws-cni", awsCNI, portmap, istioCNI), "aws-cni", vpc),
		"Istio chained on Calico":    one("10-calico.conflist", list("0.3.1", "k8s-pod-network", calicoPlugin, istioCNI), "k8s-pod-network", calico),
		"Linkerd chained on flannel": one("10-flannel.conflist", list("0.3.1", "cbr0", flannelPlugin, `{"type":"linkerd-cni","name":"linkerd-cni"}`), "cbr0"),
		"sbr and tuning":             one("20-tuned.conflist", list("0.4.0", "tuned", "bridge", "sbr", `{"type":"tuning","sysctl":{"net.core.somaxconn":"500"}}`), "tuned"),
		"bandwidth and firewall":     one("20-bw.conflist", list("0.4.0", "bw", "ptp", bandwidth, "firewall"), "bw"),
		"Multus, inline":             one("00-multus.conf", fmt.Sprintf(multusThin, awsList()), "multus-cni-network", vpc),
		"Multus, inline, Calico":     one("00-multus.conf", fmt.Sprintf(multusThin, calicoList()), "multus-cni-network", calico),
		"no name of a version":       one("10-x.conflist", `{"name":"plain","plugins":[{"type":"bridge"}]}`, "plain"),
		"cniVersions":                one("10-x.conflist", `{"cniVersions":["0.3.1","0.4.0","1.0.0","9.0.0"],"name":"many","plugins":[{"type":"bridge"}]}`, "many"),
		"cniVersion 0.1.0":           one("10-x.conflist", list("0.1.0", "old", "bridge"), "old"),
		"a byte order of fields":     one("10-x.conflist", `{"plugins":[{"ipam":{},"type":"bridge"}],"disableCheck":true,"name":"swapped","cniVersion":"0.4.0"}`, "swapped"),
	}
	sets["Multus thick, by path"] = confSet{
		files:   map[string]string{"00-multus.conf": fmt.Sprintf(multusThick, `,"clusterNetwork":"/host/etc/cni/net.d/10-aws.conflist"`), "10-aws.conflist": awsList()},
		network: "multus-cni-network", asks: []string{vpc},
	}
	sets["Multus thick, by order"] = confSet{
		files:   map[string]string{"00-multus.conf": fmt.Sprintf(multusThick, ""), "05-cilium.conflist": ciliumList()},
		network: "multus-cni-network", asks: []string{cilium},
	}
	sets["two, the first counts"] = confSet{files: map[string]string{"05-cilium.conflist": ciliumList(), "10-aws.conflist": awsList()}, network: "cilium", asks: []string{cilium}}
	sets["a list whose plugins lie in its folder"] = confSet{
		files:   map[string]string{"10-dir.conflist": `{"cniVersion":"1.0.0","name":"folder"}`, "folder/10-a.conf": awsCNI, "folder/20-b.conf": portmap},
		network: "folder", asks: []string{vpc},
	}
	sets["inlined plugins and a folder"] = confSet{
		files:   map[string]string{"10-dir.conflist": list("1.0.0", "both", "bridge"), "both/10-a.conf": calicoPlugin},
		network: "both", asks: []string{calico},
	}
	sets["inlined plugins only"] = confSet{
		files:   map[string]string{"10-dir.conflist": `{"cniVersion":"1.0.0","name":"inl","loadOnlyInlinedPlugins":true,"plugins":[{"type":"bridge"}]}`, "inl/10-a.conf": calicoPlugin},
		network: "inl",
	}
	sets["the rest of the folder is broken"] = confSet{files: map[string]string{"05-cilium.conflist": ciliumList(), "99-x.conflist": "{"}, network: "cilium", asks: []string{cilium}}
	broken := func(file, content, says string) confSet {
		return confSet{files: map[string]string{file: content}, reason: probe.ReasonInvalidConfig, says: says}
	}
	sets["an empty file"] = broken("10-aws.conflist", "", "10-aws.conflist")
	sets["a truncated file"] = broken("10-aws.conflist", awsList()[:80], "10-aws.conflist")
	sets["a first file that is broken"] = confSet{
		files: map[string]string{"05-cilium.conflist": "", "10-aws.conflist": awsList()}, reason: probe.ReasonInvalidConfig, says: "05-cilium.conflist",
	}
	sets["a list named .conf"] = broken("10-aws.conf", awsList(), "10-aws.conf")
	sets["a list without a name"] = broken("10-x.conflist", `{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}`, "no name")
	sets["a list of no plugins"] = broken("10-x.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[]}`, "10-x.conflist")
	sets["a list without a folder"] = broken("10-x.conflist", `{"cniVersion":"1.0.0","name":"nofolder"}`, "10-x.conflist")
	sets["a version that is no string"] = broken("10-x.conflist", `{"cniVersion":1,"name":"x","plugins":[{"type":"bridge"}]}`, "cniVersion")
	sets["a plugin that is no object"] = broken("10-x.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":["bridge"]}`, "10-x.conflist")
	sets["a plugin in the folder that is broken"] = confSet{
		files:  map[string]string{"10-dir.conflist": `{"cniVersion":"1.0.0","name":"fb"}`, "fb/10-a.conf": "{"},
		reason: probe.ReasonInvalidConfig, says: "10-a.conf",
	}
	sets["nothing"] = confSet{reason: probe.ReasonNoConfig, says: "no CNI config"}
	sets["renamed aside"] = confSet{files: map[string]string{"10-aws.conflist.cilium_bak": awsList()}, reason: probe.ReasonNoConfig, says: "10-aws.conflist.cilium_bak"}
	sets["a folder named like a config"] = confSet{files: map[string]string{"10-aws.conflist/x": "y"}, reason: probe.ReasonNoConfig, says: "no CNI config"}
	return sets
}

// place writes files as a plugin does, so that containerd sees them.
func place(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if strings.Contains(name, "/") {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
	}
	for name, content := range files {
		if !strings.Contains(name, "/") {
			temp := filepath.Join(dir, name+".tmp")
			require.NoError(t, os.WriteFile(temp, []byte(content), 0o600))
			require.NoError(t, os.Rename(temp, filepath.Join(dir, name)))
		}
	}
}

// clearConf empties the folder, and waits until containerd has seen it.
func clearConf(t *testing.T, cri *probe.CRI, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	// containerd reads the folder again on this.
	place(t, dir, map[string]string{"none": ""})
	require.NoError(t, os.Remove(filepath.Join(dir, "none")))
	require.Eventually(t, func() bool {
		state, err := cri.State(t.Context())
		return err == nil && state.CNI != nil && len(state.CNI.Networks) == 0 && strings.Contains(state.CNI.Failure, "no network config found")
	}, settleTime, 2*time.Millisecond)
}

func TestTheNetworkIsWhatContainerdSaysItIs(t *testing.T) {
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{})
	cri := &probe.CRI{Address: ctd.Address()}
	daemons, endpoints := startDaemons(t)
	check := &probe.CNI{ConfDir: ctd.CNIConfDir(), Plugin: probe.PluginAuto, Runtime: cri, Endpoints: endpoints}
	sets := confSets()
	require.GreaterOrEqual(t, len(sets), 40)
	for name, set := range sets {
		t.Run(name, func(t *testing.T) {
			clearConf(t, cri, ctd.CNIConfDir())
			daemons.take()
			place(t, ctd.CNIConfDir(), set.files)
			ctx, cancel := context.WithTimeout(t.Context(), settleTime)
			defer cancel()
			if set.network == "" {
				state, err := cri.State(ctx)
				require.NoError(t, err)
				require.False(t, state.Conditions[runtimeapi.NetworkReady].GetStatus(), "containerd's word")
				result := check.Check(ctx)
				require.Equal(t, set.reason, result.Reason, result.Message)
				require.Contains(t, result.Message, set.says)
				return
			}
			var result probe.Result
			require.Eventually(t, func() bool { result = check.Check(ctx); return result.Status == probe.True }, settleTime, 2*time.Millisecond, "%v", &result)
			state, err := cri.State(ctx)
			require.NoError(t, err)
			require.True(t, state.Conditions[runtimeapi.NetworkReady].GetStatus(), "containerd's word")
			require.Equal(t, set.network, state.CNI.Networks[0].Name)
			require.Contains(t, result.Message, set.network)
			require.ElementsMatch(t, set.asks, daemons.take())
		})
	}
}

// containerd does not read its folder again for a file that is moved in from elsewhere, and keeps what it has loaded when
// nothing tells it to read again.
func TestAConfigThatContainerdHasNotReadIsSaidToBe(t *testing.T) {
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{})
	cri := &probe.CRI{Address: ctd.Address()}
	_, endpoints := startDaemons(t)
	check := &probe.CNI{ConfDir: ctd.CNIConfDir(), Plugin: probe.PluginAuto, Runtime: cri, Endpoints: endpoints}
	aside := filepath.Join(filepath.Dir(ctd.CNIConfDir()), "aside")
	move := func(name, content string) {
		t.Helper()
		require.NoError(t, os.WriteFile(aside, []byte(content), 0o600))
		long := time.Now().Add(-time.Minute)
		require.NoError(t, os.Chtimes(aside, long, long))
		require.NoError(t, os.Rename(aside, filepath.Join(ctd.CNIConfDir(), name)))
	}
	move("10-aws.conflist", awsList())
	result := check.Check(t.Context())
	require.Equal(t, probe.ReasonNetworkNotReady, result.Reason, result.Message)
	require.Contains(t, result.Message, "10-aws.conflist")
	require.Contains(t, result.Message, "restart containerd")

	place(t, ctd.CNIConfDir(), map[string]string{"10-aws.conflist": awsList()})
	require.Eventually(t, func() bool { return check.Check(t.Context()).Status == probe.True }, settleTime, 2*time.Millisecond)
	check.Plugin = probe.PluginCilium
	result = check.Check(t.Context())
	require.Equal(t, probe.ReasonPluginNotLoaded, result.Reason, result.Message)
	move("05-cilium.conflist", list("0.4.0", "aws-cni", awsCNI, portmap, "cilium-cni"))
	result = check.Check(t.Context())
	require.Equal(t, probe.ReasonPluginNotLoaded, result.Reason, result.Message)
	require.Contains(t, result.Message, "05-cilium.conflist has it")
	require.NoError(t, ctd.Restart(t.Context()))
	require.Equal(t, probe.True, check.Check(t.Context()).Status)
}
