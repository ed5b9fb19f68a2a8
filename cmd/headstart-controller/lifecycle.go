package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/deploy"
	"headstart.dev/deploy/lifecycle"
)

// lifecycleTimeout bounds a job before an upgrade or an uninstall; Helm waits for it.
const lifecycleTimeout = 4 * time.Minute

func newUpgradeCRDsCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:     "upgrade-crds",
		Short:   "Brings the CRDs to this version (Helm does not)",
		Example: "  headstart-controller upgrade-crds --kubeconfig ~/.kube/config",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), lifecycleTimeout)
			defer cancel()
			o.upstream.qps = -1 // a node is two requests; the API server's own fairness is limit enough
			config, err := loadConfig(&o)
			if err != nil {
				return err
			}
			client, err := dynamic.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			return lifecycle.UpgradeCRDs(ctx, client, deploy.CRDs)
		},
	}
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's service account")
	return cmd
}

func newCleanUpCommand() *cobra.Command {
	var (
		o options
		c lifecycle.Cluster
	)
	cmd := &cobra.Command{
		Use:   "clean-up",
		Short: "Takes everything of Headstart off nodes and pods, before an uninstall",
		Long: "clean-up stops the controller and the agents' DaemonSets, then takes their taints, labels, annotations and conditions\n" +
			"off every node and lifts the gates that GatePolicies name. Take our taint out of your NodePools first: nodes that come\n" +
			"with it afterwards keep it. The chart runs it by itself, with --unless-installed, after an uninstall.",
		Example: "  headstart-controller clean-up --kubeconfig ~/.kube/config --namespace headstart-system",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), lifecycleTimeout)
			defer cancel()
			o.upstream.qps = -1 // a node is two requests; the API server's own fairness is limit enough
			config, err := loadConfig(&o)
			if err != nil {
				return err
			}
			if c.Core, err = kubernetes.NewForConfig(config); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			if c.Dynamic, err = dynamic.NewForConfig(config); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			c.Log = logr.FromSlogHandler(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
			return lifecycle.CleanUp(ctx, c)
		},
	}
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's service account")
	cmd.Flags().StringVar(&c.Namespace, "namespace", "headstart-system", "namespace of the controller and the agents")
	cmd.Flags().StringSliceVar(&c.Taints, "taint", nil, "`key` of a taint of a rule that may be gone already")
	cmd.Flags().BoolVar(&c.UnlessInstalled, "unless-installed", false, "do nothing while a controller or an agent is installed")
	cmd.Flags().BoolVar(&c.DeleteCRDs, "delete-crds", false, "delete our CRDs too, and with them all rules, policies and pools")
	return cmd
}
