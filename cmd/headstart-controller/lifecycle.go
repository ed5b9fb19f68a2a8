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
		Args:    usageArgs,
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
		o         options
		namespace string
	)
	cmd := &cobra.Command{
		Use:   "clean-up",
		Short: "Takes everything of Headstart off nodes and pods, before an uninstall",
		Long: "clean-up stops the controller and the agents' DaemonSet, then takes their taints, labels, annotations and conditions\n" +
			"off every node and lifts the gates that GatePolicies name. Take our taint out of your NodePools first: nodes that come\n" +
			"with it afterwards keep it.",
		Example: "  headstart-controller clean-up --kubeconfig ~/.kube/config --namespace headstart-system",
		Args:    usageArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), lifecycleTimeout)
			defer cancel()
			o.upstream.qps = -1 // a node is two requests; the API server's own fairness is limit enough
			config, err := loadConfig(&o)
			if err != nil {
				return err
			}
			core, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			client, err := dynamic.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			log := logr.FromSlogHandler(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
			return lifecycle.CleanUp(ctx, lifecycle.Cluster{Core: core, Dynamic: client, Namespace: namespace, Log: log})
		},
	}
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's service account")
	cmd.Flags().StringVar(&namespace, "namespace", "headstart-system", "namespace of the controller and the agents")
	return cmd
}
