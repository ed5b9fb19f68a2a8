package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/readiness"
)

// Labels and an annotation that the kubelet gives what it has the runtime make.
// Source: k8s.io/kubernetes pkg/kubelet/kuberuntime/labels.go@v1.37.2, k8s.io/kubelet/pkg/types/labels.go.
const (
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	annotationPorts   = "io.kubernetes.container.ports"
)

// PodAddress is where a pod of this node answers: a probe that was written for the kubelet names the container's port, and
// goes to the pod's own address. It is looked up in the container runtime, so that no other host can be meant.
type PodAddress struct {
	Runtime *CRI
	// Pod is whose pod it is.
	Pod readiness.DaemonSet
	// Host is where the probe names one, which is this node's loopback then; "" for the pod's address.
	Host string
	Port intstr.IntOrString
}

// loopback is where pods of the host's network answer.
const loopback = "127.0.0.1"

// Find returns host:port. A port by number of a pod that the runtime cannot tell of is looked for on the loopback.
func (a *PodAddress) Find(ctx context.Context) (string, error) {
	if a.Host != "" && a.Port.Type == intstr.Int {
		return join(a.Host, a.Port.IntVal), nil
	}
	host, port, err := a.ask(ctx)
	switch {
	case err != nil && a.Port.Type == intstr.Int:
		return join(loopback, a.Port.IntVal), nil
	case err != nil:
		return "", err
	case a.Host != "":
		host = a.Host
	}
	return join(host, port), nil
}

func join(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// ask finds the pod and its port in the runtime.
func (a *PodAddress) ask(ctx context.Context) (host string, port int32, err error) {
	conn, err := dialGRPC(ctx, "unix://"+a.Runtime.Address)
	if err != nil {
		return "", 0, fmt.Errorf("ask the container runtime: %w", err)
	}
	defer func() { _ = conn.Close() }()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	id, err := a.sandbox(ctx, client)
	if err != nil {
		return "", 0, err
	}
	status, err := client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		return "", 0, fmt.Errorf("ask the container runtime: %w", err)
	}
	host = status.GetStatus().GetNetwork().GetIp()
	if host == "" || status.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		host = loopback
	}
	if a.Port.Type == intstr.Int {
		return host, a.Port.IntVal, nil
	}
	port, err = a.namedPort(ctx, client, id)
	return host, port, err
}

// sandbox finds the pod that runs.
func (a *PodAddress) sandbox(ctx context.Context, client runtimeapi.RuntimeServiceClient) (id string, err error) {
	list, err := client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{labelPodNamespace: a.Pod.Namespace},
	}})
	if err != nil {
		return "", fmt.Errorf("ask the container runtime: %w", err)
	}
	var newest int64
	for _, sandbox := range list.GetItems() {
		if a.Pod.Owns(podOf(sandbox)) && sandbox.GetCreatedAt() >= newest {
			id, newest = sandbox.GetId(), sandbox.GetCreatedAt()
		}
	}
	if id == "" {
		return "", fmt.Errorf("find pod of DaemonSet %s: none runs on this node", &a.Pod)
	}
	return id, nil
}

// podOf is the pod of a sandbox. Its controller is told by its name, as the DaemonSet controller gives names: a hyphen and
// five letters behind its own.
func podOf(sandbox *runtimeapi.PodSandbox) *readiness.Pod {
	labels := sandbox.GetLabels()
	pod := &readiness.Pod{Namespace: labels[labelPodNamespace], Name: labels[labelPodName], Labels: labels}
	if at := strings.LastIndexByte(pod.Name, '-'); at > 0 && labels["controller-revision-hash"] != "" {
		pod.DaemonSet = pod.Name[:at]
	}
	return pod
}

// namedPort finds the port of that name among those of the pod's containers.
func (a *PodAddress) namedPort(ctx context.Context, client runtimeapi.RuntimeServiceClient, sandbox string) (int32, error) {
	list, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: sandbox}})
	if err != nil {
		return 0, fmt.Errorf("ask the container runtime: %w", err)
	}
	for _, container := range list.GetContainers() {
		var ports []corev1.ContainerPort
		if err := json.Unmarshal([]byte(container.GetAnnotations()[annotationPorts]), &ports); err != nil {
			continue // a container without ports has no annotation
		}
		for _, port := range ports {
			if port.Name == a.Port.StrVal {
				return port.ContainerPort, nil
			}
		}
	}
	return 0, fmt.Errorf("find port %q: no container of the pod of DaemonSet %s has it", a.Port.StrVal, &a.Pod)
}

// At is a check of what a pod of this node answers. The address is looked up again when a look there failed: a pod that was
// made anew has another. One that was just looked up has a second look, which need not share its time with looking up.
type At struct {
	Address *PodAddress
	Make    func(address string) Checker

	found string
}

// Check looks the address up and then looks there.
func (p *At) Check(ctx context.Context) Result {
	fresh := p.found == ""
	if fresh {
		found, err := p.Address.Find(ctx)
		if err != nil {
			return notReady(ReasonNotFound, "%v", err)
		}
		p.found = found
	}
	result := p.Make(p.found).Check(ctx)
	if result.Status != True && !fresh {
		p.found = ""
	}
	return result
}
