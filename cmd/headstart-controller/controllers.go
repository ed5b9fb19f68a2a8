package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"

	gatescontroller "headstart.dev/gates/controller"
	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	warmpoolcontroller "headstart.dev/gates/warmpool/controller"
	prepullcontroller "headstart.dev/prepull/controller"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
	readinesscontroller "headstart.dev/readiness/controller"
	readinessv1alpha1 "headstart.dev/readiness/v1alpha1"
)

// shared is what every controller may need beside the manager.
type shared struct {
	rules      []readiness.Form
	writers    int
	namespace  string
	registerer prometheus.Registerer
}

// schemes are the API types that the controllers use: one line a domain.
var schemes = []func(*runtime.Scheme) error{
	gatesv1alpha1.AddToScheme,
	prepullv1alpha1.AddToScheme,
	readinessv1alpha1.AddToScheme,
}

// controllers are what runs in this process: one line each.
var controllers = map[string]func(ctrl.Manager, shared) error{
	"gates": func(mgr ctrl.Manager, s shared) error {
		return gatescontroller.SetupWithManager(mgr, gatescontroller.Config{Registerer: s.registerer})
	},
	"prepull": func(mgr ctrl.Manager, s shared) error {
		return prepullcontroller.SetupWithManager(mgr, prepullcontroller.Config{Namespace: s.namespace})
	},
	"readiness": func(mgr ctrl.Manager, s shared) error {
		return readinesscontroller.SetupWithManager(mgr, readinesscontroller.Config{
			Forms: s.rules, Writers: s.writers, Namespace: s.namespace, Registerer: s.registerer,
		})
	},
	"warmpool": func(mgr ctrl.Manager, s shared) error {
		return warmpoolcontroller.SetupWithManager(mgr, warmpoolcontroller.Config{Registerer: s.registerer})
	},
}
