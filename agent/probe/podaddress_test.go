package probe_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/agent/probe"
	"headstart.dev/readiness"
)

// podRuntime is a CRI with one pod, as the kubelet has it made for a DaemonSet.
type podRuntime struct {
	runtimeapi.UnimplementedRuntimeServiceServer

	ip    string
	ports string
}

func (r *podRuntime) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "s", Labels: map[string]string{
		"io.kubernetes.pod.namespace": "kube-system", "io.kubernetes.pod.name": "ebs-csi-node-x7x2p", "controller-revision-hash": "1", "app": "ebs",
	}}}}, nil
}

func (r *podRuntime) PodSandboxStatus(context.Context, *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{Network: &runtimeapi.PodSandboxNetworkStatus{Ip: r.ip}}}, nil
}

func (r *podRuntime) ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{
		{}, {Annotations: map[string]string{"io.kubernetes.container.ports": r.ports}},
	}}, nil
}

// patientLook is for looks that are to succeed, however busy the machine is.
const patientLook = 30 * time.Second

// TestProbesOfPods is of probes as EBS CSI's and Cilium's manifests have them: a port by name, and headers.
func TestProbesOfPods(t *testing.T) {
	var brief, host string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { brief, host = r.Header.Get("Brief"), r.Host }))
	t.Cleanup(server.Close)
	ip, text, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)

	socket := filepath.Join(t.TempDir(), "cri.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	cri := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(cri, &podRuntime{ip: ip, ports: `[{"name":"healthz","containerPort":` + text + `,"protocol":"TCP"}]`})
	go func() { _ = cri.Serve(listener) }()
	t.Cleanup(cri.Stop)

	byName := readiness.DaemonSet{Namespace: "kube-system", Name: "ebs-csi-node"}
	bySelector := readiness.DaemonSet{Namespace: "kube-system", Name: "any", Selector: labels.SelectorFromSet(labels.Set{"app": "ebs"})}
	check := func(ds readiness.DaemonSet, runtime, host string, port intstr.IntOrString) probe.Result {
		at := &probe.At{
			Address: &probe.PodAddress{Runtime: &probe.CRI{Address: runtime}, Pod: ds, Host: host, Port: port},
			Make: func(address string) probe.Checker {
				return &probe.HTTP{URL: "http://" + address + "/healthz", Headers: http.Header{"Brief": {"true"}, "Host": {"cilium"}}}
			},
		}
		return look(t, at, patientLook)
	}
	requireTrue := func(r probe.Result) {
		t.Helper()
		require.Equal(t, probe.True, r.Status, r.Message)
	}
	named := intstr.FromString("healthz")
	requireTrue(check(byName, socket, "", named))
	require.Equal(t, []string{"true", "cilium"}, []string{brief, host})
	requireTrue(check(bySelector, socket, "", named))
	requireTrue(check(byName, socket, "127.0.0.1", intstr.FromInt(port)))
	requireTrue(check(byName, socket+".absent", "", intstr.FromInt(port))) // without a runtime, on the loopback
	require.Contains(t, check(byName, socket, "", intstr.FromString("other")).Message, `find port "other"`)
	require.Contains(t, check(readiness.DaemonSet{Namespace: "kube-system", Name: "absent"}, socket, "", named).Message, "none runs on this node")
	require.Equal(t, probe.False, check(byName, socket+".absent", "", named).Status)
}
