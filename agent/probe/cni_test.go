package probe_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/agent/probe"
)

const (
	genericConflist = `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}`
	awsConflist     = `{"cniVersion":"0.4.0","name":"aws-cni","plugins":[{"type":"aws-cni"},{"type":"egress-cni"},{"type":"portmap"}]}`
	ciliumConflist  = `{"cniVersion":"0.3.1","name":"cilium","plugins":[{"type":"cilium-cni"}]}`
	calicoConflist  = `{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[{"type":"calico"},{"type":"portmap"}]}`
)

// criServer is a container runtime whose network is ready or not.
type criServer struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeReady, networkReady atomic.Bool
	info                       atomic.Pointer[map[string]string]
}

// loads makes it tell, as containerd does, what it has loaded.
func (s *criServer) loads(t *testing.T, confDir, name string, plugins ...string) {
	t.Helper()
	sources := []map[string]any{}
	for _, plugin := range plugins {
		sources = append(sources, map[string]any{"Source": plugin})
	}
	raw, err := json.Marshal(map[string]any{"PluginConfDir": confDir, "Networks": []any{
		map[string]any{"IFName": "lo", "Config": map[string]any{"Name": "cni-loopback", "Plugins": []any{map[string]any{"Source": `{"type":"loopback"}`}}}},
		map[string]any{"IFName": "eth0", "Config": map[string]any{"Name": name, "Plugins": sources}},
	}})
	require.NoError(t, err)
	s.info.Store(&map[string]string{"cniconfig": string(raw), "lastCNILoadStatus": "OK"})
}

func (s *criServer) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	info := map[string]string{}
	if told := s.info.Load(); told != nil {
		info = *told
	}
	return &runtimeapi.StatusResponse{Info: info, Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: s.runtimeReady.Load()},
		{Type: runtimeapi.NetworkReady, Status: s.networkReady.Load(), Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
	}}}, nil
}

// cniNode is a node with a container runtime and no config yet.
func cniNode(t *testing.T) (*probe.CNI, *criServer) {
	t.Helper()
	dir := socketDir(t)
	runtime := &criServer{}
	runtime.runtimeReady.Store(true)
	runtime.networkReady.Store(true)
	socket := filepath.Join(dir, "containerd.sock")
	serve(t, listen(t, "unix", socket), func(s *grpc.Server) { runtimeapi.RegisterRuntimeServiceServer(s, runtime) })
	confDir := filepath.Join(dir, "net.d")
	require.NoError(t, os.Mkdir(confDir, 0o755))
	return &probe.CNI{ConfDir: confDir, Plugin: probe.PluginAuto, Runtime: &probe.CRI{Address: socket}, Endpoints: probe.PluginEndpoints{
		VPCCNISocket: filepath.Join(dir, "ipamd.sock"), VPCCNIAddress: "127.0.0.1:1", VPCCNIIntrospection: "http://127.0.0.1:1/v1/enis",
		CiliumURL: "http://127.0.0.1:1/healthz", CiliumSocket: filepath.Join(dir, "cilium.sock"), CalicoURL: "http://127.0.0.1:1/readiness",
	}}, runtime
}

func writeConf(t *testing.T, cni *probe.CNI, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(cni.ConfDir, name), []byte(content), 0o600))
}

func TestCNI(t *testing.T) {
	cni, runtime := cniNode(t)
	require.Equal(t, probe.ReasonNoConfig, look(t, cni, childTime).Reason)

	writeConf(t, cni, "10-net.conflist", `{"name":"net"`)
	result := look(t, cni, childTime)
	require.Equal(t, probe.ReasonInvalidConfig, result.Reason)
	require.Contains(t, result.Message, "10-net.conflist")

	require.NoError(t, os.Remove(filepath.Join(cni.ConfDir, "10-net.conflist")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(cni.ConfDir, "05-net.conflist"), 0o600))
	require.Equal(t, probe.ReasonInvalidConfig, look(t, cni, childTime).Reason, "a FIFO does not block the probe")

	writeConf(t, cni, "10-net.conflist", genericConflist)
	require.Equal(t, probe.True, look(t, cni, childTime).Status, "the runtime skips what does not parse, and so does the probe")

	runtime.networkReady.Store(false)
	result = look(t, cni, childTime)
	require.Equal(t, probe.ReasonNetworkNotReady, result.Reason)
	require.Contains(t, result.Message, "cni plugin not initialized")
	runtime.runtimeReady.Store(false)
	require.Equal(t, probe.ReasonRuntimeNotReady, look(t, cni, childTime).Reason)
}

func TestCNIWithoutARuntime(t *testing.T) {
	cni, _ := cniNode(t)
	writeConf(t, cni, "10-net.conflist", genericConflist)
	dir := socketDir(t)
	cni.Runtime = &probe.CRI{Address: filepath.Join(dir, "absent.sock")}
	result := look(t, cni, childTime)
	require.Equal(t, probe.ReasonRuntimeNotReady, result.Reason)
	require.Contains(t, result.Message, "absent.sock")

	silent(t, listen(t, "unix", filepath.Join(dir, "hangs.sock")))
	cni.Runtime = &probe.CRI{Address: filepath.Join(dir, "hangs.sock")}
	require.Equal(t, probe.ReasonTimeout, look(t, cni, shortLook).Reason)
}

func TestVPCCNI(t *testing.T) {
	cni, _ := cniNode(t)
	writeConf(t, cni, "10-aws.conflist", awsConflist)
	require.Equal(t, probe.ReasonUnreachable, look(t, cni, childTime).Reason, "ipamd is not there")

	listener := listen(t, "tcp", "127.0.0.1:0")
	old := health.NewServer()
	serve(t, listener, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, old) })
	cni.Endpoints.VPCCNIAddress = listener.Addr().String()
	require.Equal(t, probe.True, look(t, cni, childTime).Status, "before v1.23: TCP, and no name of the service")

	states := health.NewServer()
	states.SetServingStatus("grpc.health.v1.aws-node", healthpb.HealthCheckResponse_NOT_SERVING)
	serve(t, listen(t, "unix", cni.Endpoints.VPCCNISocket), func(s *grpc.Server) { healthpb.RegisterHealthServer(s, states) })
	require.Equal(t, probe.ReasonUnhealthy, look(t, cni, childTime).Reason, "since v1.23: the socket is what counts")
	states.SetServingStatus("grpc.health.v1.aws-node", healthpb.HealthCheckResponse_SERVING)
	require.Equal(t, probe.True, look(t, cni, childTime).Status)

	for body, want := range map[string]string{
		`{"TotalIPs":14,"AssignedIPs":14}`: probe.ReasonNoFreeAddress,
		`{"TotalIPs":14,"AssignedIPs":13}`: probe.ReasonReady,
		`{"TotalIPs":"many"}`:              probe.ReasonReady,
		`no JSON`:                          probe.ReasonReady,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		cni.Endpoints.VPCCNIIntrospection = server.URL
		require.Equal(t, want, look(t, cni, childTime).Reason, body)
		server.Close()
	}
}

func TestCilium(t *testing.T) {
	cni, _ := cniNode(t)
	writeConf(t, cni, "05-cilium.conflist", ciliumConflist)
	require.Equal(t, probe.ReasonUnreachable, look(t, cni, childTime).Reason)

	code, body := http.StatusOK, ""
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	})
	socket := &httptest.Server{Listener: listen(t, "unix", cni.Endpoints.CiliumSocket), Config: &http.Server{Handler: handler, ReadHeaderTimeout: shortLook}}
	socket.Start()
	t.Cleanup(socket.Close)
	require.Equal(t, probe.True, look(t, cni, childTime).Status, "the health port is off, the socket answers")
	body = `{"cilium":{"state":"Failure","msg":"k8s API is not reachable"},"kubernetes":{"state":"Failure"}}`
	result := look(t, cni, childTime)
	require.Equal(t, probe.ReasonUnhealthy, result.Reason, "it answers 200 whatever it has to say")
	require.Contains(t, result.Message, "Failure: k8s API is not reachable")
	body = `{"cilium":{"state":"Ok","msg":"1.18"},"container-runtime":{"state":"Warning"}}`
	require.Equal(t, probe.True, look(t, cni, childTime).Status)

	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	cni.Endpoints.CiliumURL = server.URL
	code = http.StatusServiceUnavailable
	require.Equal(t, probe.ReasonUnhealthy, look(t, cni, childTime).Reason)
}

func TestCalico(t *testing.T) {
	cni, _ := cniNode(t)
	writeConf(t, cni, "10-calico.conflist", calicoConflist)
	require.Equal(t, probe.ReasonUnreachable, look(t, cni, childTime).Reason)
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	cni.Endpoints.CalicoURL = server.URL
	require.Equal(t, probe.ReasonUnhealthy, look(t, cni, childTime).Reason)
	cni.Plugin = "generic"
	require.Equal(t, probe.True, look(t, cni, childTime).Status, "the plugin's own signal is turned off")
}

func TestCNIWhatIsLoadedCountsAndNotWhatLiesInTheFolder(t *testing.T) {
	cni, runtime := cniNode(t)
	runtime.loads(t, cni.ConfDir, "aws-cni", `{"type":"aws-cni"}`, `{"type":"portmap"}`)
	require.Equal(t, probe.ReasonUnreachable, look(t, cni, childTime).Reason, "the VPC CNI is loaded, and ipamd does not answer")
	ipamd := health.NewServer()
	serve(t, listen(t, "unix", cni.Endpoints.VPCCNISocket), func(s *grpc.Server) { healthpb.RegisterHealthServer(s, ipamd) })
	require.Equal(t, probe.True, look(t, cni, childTime).Status)

	cni.Plugin = probe.PluginCilium
	writeConf(t, cni, "10-aws.conflist", awsConflist)
	result := look(t, cni, childTime)
	require.Equal(t, probe.ReasonPluginNotLoaded, result.Reason)
	require.Contains(t, result.Message, `network "aws-cni" (aws-cni, portmap), and not cilium`)
	writeConf(t, cni, "20-cilium.conflist", ciliumConflist)
	require.Contains(t, look(t, cni, childTime).Message, "20-cilium.conflist has it")

	cni.Plugin = probe.PluginAuto
	require.Equal(t, probe.True, look(t, cni, childTime).Status, "nothing of Cilium is on this node")
	socket := &httptest.Server{Listener: listen(t, "unix", cni.Endpoints.CiliumSocket), Config: &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: shortLook}}
	socket.Start()
	t.Cleanup(socket.Close)
	require.Equal(t, probe.ReasonPluginNotLoaded, look(t, cni, childTime).Reason, "its agent runs, and is about to chain itself")
	runtime.loads(t, cni.ConfDir, "cilium", `{"type":"aws-cni"}`, `{"type":"cilium-cni"}`)
	require.Equal(t, probe.ReasonUnhealthy, look(t, cni, childTime).Reason, "it is chained, and not well")
}

func TestCNIDelegatesAreAskedToo(t *testing.T) {
	for name, tc := range map[string]struct{ plugin, file, content string }{
		"inline":                      {`{"type":"multus","delegates":[{"name":"aws-cni","plugins":[{"type":"aws-cni"}]}]}`, "", ""},
		"inline, one plugin":          {`{"type":"multus","delegates":[{"type":"aws-cni"}]}`, "", ""},
		"by the file's path":          {`{"type":"multus-shim","clusterNetwork":"/host/etc/cni/net.d/10-aws.conflist"}`, "10-aws.conflist", awsConflist},
		"by the name":                 {`{"type":"multus","clusterNetwork":"aws-cni"}`, "10-aws.conflist", awsConflist},
		"the first that is another's": {`{"type":"multus-shim"}`, "10-aws.conflist", awsConflist},
	} {
		t.Run(name, func(t *testing.T) {
			cni, runtime := cniNode(t)
			writeConf(t, cni, "00-multus.conf", `{"cniVersion":"1.0.0","name":"multus-cni-network","type":"multus-shim"}`)
			if tc.file != "" {
				writeConf(t, cni, tc.file, tc.content)
			}
			runtime.loads(t, cni.ConfDir, "multus-cni-network", tc.plugin)
			require.Equal(t, probe.ReasonUnreachable, look(t, cni, childTime).Reason, "the VPC CNI behind it is down")
			cni.Plugin = probe.PluginVPCCNI
			require.Equal(t, probe.ReasonUnreachable, look(t, cni, childTime).Reason)
			cni.Plugin = probe.PluginCalico
			require.Equal(t, probe.ReasonPluginNotLoaded, look(t, cni, childTime).Reason)
		})
	}
}

func TestCNISaysWhatIsWrongWithTheFolder(t *testing.T) {
	cni, runtime := cniNode(t)
	runtime.networkReady.Store(false)
	runtime.info.Store(&map[string]string{"cniconfig": `{"PluginConfDir":"` + cni.ConfDir + `"}`, "lastCNILoadStatus": "cni config load failed"})
	says := func(reason, message string) {
		t.Helper()
		result := look(t, cni, childTime)
		require.Equal(t, reason, result.Reason, result.Message)
		require.Contains(t, result.Message, message)
	}
	says(probe.ReasonNoConfig, "no CNI config")
	writeConf(t, cni, "10-aws.conflist.cilium_bak", awsConflist)
	says(probe.ReasonNoConfig, "10-aws.conflist.cilium_bak is there, and its name")
	writeConf(t, cni, "05-cilium.conflist", "")
	writeConf(t, cni, "10-net.conflist", genericConflist)
	says(probe.ReasonInvalidConfig, "05-cilium.conflist")
	writeConf(t, cni, "05-cilium.conflist", ciliumConflist)
	says(probe.ReasonNetworkNotReady, `05-cilium.conflist (network "cilium"): cni config load failed`)
	long := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(cni.ConfDir, "05-cilium.conflist"), long, long))
	says(probe.ReasonNetworkNotReady, "restart containerd")
	elsewhere := filepath.Join(cni.ConfDir, "elsewhere")
	runtime.info.Store(&map[string]string{"cniconfig": `{"PluginConfDir":"` + elsewhere + `"}`, "lastCNILoadStatus": "no network config found"})
	says(probe.ReasonNetworkNotReady, "set confDir")
}

func TestCNIPluginsAtOtherAddresses(t *testing.T) {
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(good.Close)
	v6 := httptest.NewUnstartedServer(good.Config.Handler)
	require.NoError(t, v6.Listener.Close())
	v6.Listener = listen(t, "tcp", "[::1]:0")
	v6.Start()
	t.Cleanup(v6.Close)
	_, port, err := net.SplitHostPort(v6.Listener.Addr().String())
	require.NoError(t, err)
	ipamd := listen(t, "tcp", "[::1]:0")
	serve(t, ipamd, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
	socket := filepath.Join(socketDir(t), "s")
	serve(t, listen(t, "unix", socket), func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
	for name, tc := range map[string]struct{ conflist, address string }{
		"Calico at a URL":              {calicoConflist, good.URL + "/readiness"},
		"Cilium at host:port":          {ciliumConflist, good.Listener.Addr().String()},
		"Cilium on IPv6 alone":         {ciliumConflist, "http://127.0.0.1:" + port},
		"Cilium at an IPv6 address":    {ciliumConflist, v6.Listener.Addr().String()},
		"the VPC CNI at another port":  {awsConflist, ipamd.Addr().String()},
		"the VPC CNI's socket is here": {awsConflist, "unix://" + socket},
	} {
		t.Run(name, func(t *testing.T) {
			cni, _ := cniNode(t)
			cni.Endpoints = cni.Endpoints.WithAddress(tc.address)
			writeConf(t, cni, "10-net.conflist", tc.conflist)
			result := look(t, cni, childTime)
			require.Equal(t, probe.True, result.Status, result.Message)
		})
	}
}

func TestAConflistThatIsRenamedIntoPlaceIsSeenByAnEvent(t *testing.T) {
	cni, _ := cniNode(t)
	results := start(t, cni, eventsOnly)
	require.Equal(t, probe.ReasonNoConfig, next(t, results).Reason)
	aside := filepath.Join(socketDir(t), "aside")
	require.NoError(t, os.WriteFile(aside, []byte(genericConflist), 0o600))
	require.NoError(t, os.Rename(aside, filepath.Join(cni.ConfDir, "10-net.conflist")))
	require.Equal(t, probe.True, next(t, results).Status)
}

func FuzzParseCNIConfig(f *testing.F) {
	for _, text := range []string{genericConflist, awsConflist, ciliumConflist, calicoConflist, `{"type":"bridge","name":"x"}`, `{"plugins":[null]}`} {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, list bool) {
		config, err := probe.ParseCNIConfig(raw, list)
		if err == nil {
			require.NotEmpty(t, config.Plugins)
		}
	})
}
