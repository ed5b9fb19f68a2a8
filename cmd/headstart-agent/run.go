package main

import (
	"cmp"
	"io"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"headstart.dev/agent"
	"headstart.dev/bottlerocket"
	"headstart.dev/cmd/internal/cli"
)

// configFlags are the flags that say which config a command runs with. Those that repeat a field of it win over it.
type configFlags struct {
	config     string
	nodeName   string
	kubeconfig string
	stateDir   string
	metrics    string
}

const defaultConfig = "/etc/headstart/agent.yaml"

func (f *configFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", defaultConfig, "the agent's config `file`")
	cmd.Flags().StringVar(&f.nodeName, "node-name", "", "name of this node's Node object (default $NODE_NAME, else nodeName of the config, else the kubelet's)")
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "`file` to reach the API server with (default $KUBECONFIG, else kubeconfig of the config, else in-cluster, else /var/lib/kubelet/kubeconfig)")
	cmd.Flags().StringVar(&f.stateDir, "state-dir", "", "`folder` of the timeline and the lock (default stateDir of the config, else /run/headstart)")
	cmd.Flags().StringVar(&f.metrics, "metrics-bind-address", "", "`host:port` of the metrics, 0 for none (default metrics.bindAddress of the config, else 127.0.0.1:9464)")
}

// load reads the config and lays flags and environment over it.
func (f *configFlags) load() (agent.Config, error) {
	cfg, err := agent.Load(f.config)
	if err != nil {
		return agent.Config{}, cli.Usage(err)
	}
	cfg, err = cfg.With(agent.Overrides{
		NodeName:           cmp.Or(f.nodeName, os.Getenv("NODE_NAME")),
		Kubeconfig:         cmp.Or(f.kubeconfig, os.Getenv("KUBECONFIG")),
		StateDir:           f.stateDir,
		MetricsBindAddress: f.metrics,
	})
	return cfg, cli.Usage(err)
}

func newRunCommand() *cobra.Command {
	var (
		flags    configFlags
		once     bool
		logLevel string
	)
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Pre-pulls, probes and publishes until it is stopped",
		Long: "run pulls the images of the config, probes what pods depend on, and publishes both as conditions of this node's\n" +
			"Node. It works before the API server answers, keeps what it has, and publishes when it can. In a Bottlerocket host\n" +
			"container it pulls the images of the container's user-data and switches the container off.\n\n" +
			"Exit codes: 0 it was stopped, or is done with --once; 1 it failed; 2 the command line or the config cannot be understood.",
		Example: "  headstart-agent run --config /etc/headstart/agent.yaml\n" +
			"  headstart-agent run --config agent.yaml --once --node-name node-1 --kubeconfig ~/.kube/config",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), logLevel)
			if err != nil {
				return err
			}
			if inHostContainer(flags.config, bottlerocket.UserDataFile) {
				return runHostContainer(cmd.Context(), bottlerocket.UserDataFile, bottlerocket.Client{}.Disable, log)
			}
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			registry := prometheus.NewRegistry()
			registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
			a, err := agent.New(agent.Options{Config: cfg, NewPuller: newPuller(cfg, log, registry), Log: log, Registry: registry, Once: once})
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&once, "once", false, "exit 0 as soon as everything that is configured is ready")
	cmd.Flags().StringVar(&logLevel, "log-level", "info", "info or debug")
	return cmd
}

// newLogger logs JSON lines.
func newLogger(w io.Writer, level string) (logr.Logger, error) {
	// logr's V(n) is slog's level -n.
	levels := map[string]slog.Level{"info": slog.LevelInfo, "debug": slog.Level(-2)}
	at, known := levels[level]
	if !known {
		return logr.Logger{}, cli.Usagef("--log-level %q: write info or debug", level)
	}
	return logr.FromSlogHandler(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: at})), nil
}
