package binaries

import (
	"context"
	"io"
	"maps"
	"path/filepath"
	"slices"
)

// Module is a module under test/tools whose servers are built together.
type Module struct {
	// dir is its folder below test/tools, "" for test/tools itself.
	dir string
	// packages maps each server's name to its main package.
	packages map[string]string
	// cgo says that C code is compiled, with the compiler of test/tools/debian-packages.
	cgo bool
	// shares has the servers built as this project's own programs are (see the Makefile): what both import at one version is
	// compiled once, which is nearly a quarter of a first build's packages. The tags keep the C library out, and the headers of Btrfs.
	shares bool
}

// mainModule has all servers but those that need a module of their own.
var mainModule = Module{cgo: true, shares: true, packages: map[string]string{
	Etcd:              "go.etcd.io/etcd/server/v3",
	APIServer:         "k8s.io/kubernetes/cmd/kube-apiserver",
	Scheduler:         "k8s.io/kubernetes/cmd/kube-scheduler",
	ControllerManager: "k8s.io/kubernetes/cmd/kube-controller-manager",
	Kubelet:           "k8s.io/kubernetes/cmd/kubelet",
	Containerd:        "github.com/containerd/containerd/v2/cmd/containerd",
	Shim:              "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
	Ctr:               "github.com/containerd/containerd/v2/cmd/ctr",
	Registry:          "headstart.dev/test/tools/registry",
}}

// The names of servers and tools that have modules of their own.
const (
	Helm            = "helm"
	Kustomize       = "kustomize"
	Karpenter       = "karpenter-kwok"
	SOCI            = "soci"
	SOCISnapshotter = "soci-snapshotter-grpc"
)

// The modules beside the main one. Containerd17 and Containerd22 have Containerd and Shim, as the main one has.
var (
	KarpenterModule = Module{dir: "karpenter", packages: map[string]string{Karpenter: "sigs.k8s.io/karpenter/kwok"}}
	Containerd17    = Module{dir: "containerd-1.7", packages: map[string]string{
		Containerd: "github.com/containerd/containerd/cmd/containerd",
		Shim:       "github.com/containerd/containerd/cmd/containerd-shim-runc-v2",
	}}
	Containerd22 = Module{dir: "containerd-2.2", packages: map[string]string{
		Containerd: "github.com/containerd/containerd/v2/cmd/containerd",
		Shim:       "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
	}}
	HelmModule = Module{dir: "deploy", packages: map[string]string{
		Helm: "helm.sh/helm/v3/cmd/helm", Kustomize: "sigs.k8s.io/kustomize/kustomize/v5",
	}}
	SOCIModule = Module{dir: "soci", cgo: true, packages: map[string]string{
		SOCI:            "github.com/awslabs/soci-snapshotter/cmd/soci",
		SOCISnapshotter: "github.com/awslabs/soci-snapshotter/cmd/soci-snapshotter-grpc",
	}}
)

// Ensure returns the folder that holds the module's servers, as the function Ensure does for the main one.
func (m Module) Ensure(ctx context.Context, progress io.Writer) (string, error) {
	return m.ensure(ctx, progress, slices.Collect(maps.Keys(m.packages))...)
}

// source is the module's folder.
func (m Module) source() (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "test", "tools", m.dir), nil
}

// Modules are all modules, the main one first. What tests run is built of them ahead of time: no test's time limit is
// spent on compiling.
func Modules() []Module {
	return []Module{mainModule, HelmModule, KarpenterModule, Containerd22, Containerd17, SOCIModule}
}
