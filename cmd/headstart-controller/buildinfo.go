package main

import (
	"fmt"
	goruntime "runtime"

	"github.com/prometheus/client_golang/prometheus"

	"headstart.dev/cmd/internal/cli"
)

// registerBuildInfo serves which build this is.
func registerBuildInfo(reg prometheus.Registerer) error {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "headstart_build_info", Help: "1, with the version of this build.",
	}, []string{"version", "goversion"})
	info.WithLabelValues(cli.Current().Version, goruntime.Version()).Set(1)
	if err := reg.Register(info); err != nil {
		return fmt.Errorf("register build info: %w", err)
	}
	return nil
}
