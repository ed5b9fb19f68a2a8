package main

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/cmd/internal/cli"
	gatescontroller "headstart.dev/gates/controller"
	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	warmpoolcontroller "headstart.dev/gates/warmpool/controller"
	prepullcontroller "headstart.dev/prepull/controller"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
	readinesscontroller "headstart.dev/readiness/controller"
	"headstart.dev/readiness/nodewatch"
	readinessv1alpha1 "headstart.dev/readiness/v1alpha1"
)

// shared is what every controller may need beside the manager.
type shared struct {
	rules      []readiness.Form
	writers    int
	nodeStates bool
	namespace  string
	registerer prometheus.Registerer
	// nodes is the one watch of Nodes.
	nodes *nodewatch.Watch
}

// schemes are the API types that the controllers use: one line a domain.
var schemes = []func(*runtime.Scheme) error{
	gatesv1alpha1.AddToScheme,
	prepullv1alpha1.AddToScheme,
	readinessv1alpha1.AddToScheme,
}

// controllers are what runs in this process, one line each. Readiness is the first to hear of a node.
var controllers = []struct {
	name  string
	setUp func(ctrl.Manager, shared) error
}{
	{"readiness", func(mgr ctrl.Manager, s shared) error {
		return readinesscontroller.SetupWithManager(mgr, readinesscontroller.Config{
			Forms: s.rules, Writers: s.writers, Namespace: s.namespace, Registerer: s.registerer, Nodes: s.nodes,
			Version: cli.Current().Version, UpstreamNodeStates: s.nodeStates,
		})
	}},
	{"gates", func(mgr ctrl.Manager, s shared) error {
		return gatescontroller.SetupWithManager(mgr, gatescontroller.Config{Registerer: s.registerer, Nodes: s.nodes})
	}},
	{"prepull", func(mgr ctrl.Manager, s shared) error {
		return prepullcontroller.SetupWithManager(mgr, prepullcontroller.Config{Namespace: s.namespace, Registerer: s.registerer, Nodes: s.nodes})
	}},
	{"warmpool", func(mgr ctrl.Manager, s shared) error {
		return warmpoolcontroller.SetupWithManager(mgr, warmpoolcontroller.Config{Registerer: s.registerer, Nodes: s.nodes})
	}},
}

// controllerNames are those of controllers, in their order.
func controllerNames() []string {
	names := make([]string, 0, len(controllers))
	for _, c := range controllers {
		names = append(names, c.name)
	}
	return names
}

// trimmed says what the shared cache keeps of objects of which a cluster has many.
var trimmed = map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: warmpoolcontroller.StripPod}}
