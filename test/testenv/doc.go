// Package testenv starts real Kubernetes, containerd and registry servers on one machine: etcd, kube-apiserver,
// kube-scheduler, kube-controller-manager, a registry, containerd and kubelet, each built once from its Go module.
//
// Every StartX(t, ...) registers its own clean-up and shows the servers' logs when the test fails; it wraps a NewX(ctx, ...)
// that programs and TestMain use, and that the caller must Stop. A stopped testbed leaves no process, mount, network
// namespace or cgroup; what a killed program left is removed by the next start. Servers listen on free ports of loopback.
//
// What needs root (everything but the control plane and the registry) skips without it: see Skip. All methods are safe for
// concurrent use unless they say otherwise. Start from StartControlPlane.
package testenv
