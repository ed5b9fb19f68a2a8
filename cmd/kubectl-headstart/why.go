package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/gates"
	gatescontroller "headstart.dev/gates/controller"
	"headstart.dev/internal/room"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness/inspect"
)

func newWhyCommand() *cobra.Command {
	var (
		flags  clusterFlags
		output string
	)
	cmd := &cobra.Command{
		Use:   "why pod/POD | pod POD | node/NODE | node NODE",
		Short: "Says why a pod or a node is held, since when, and what would release it",
		Example: "  kubectl headstart why node/ip-10-0-0-1.ec2.internal\n" +
			"  kubectl headstart why pod web-7d4b9 -n shop -o json",
		Args: cli.Args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !strings.Contains(args[0], "/") {
				return cli.Usagef("%q: want pod/%[1]s or node/%[1]s", args[0])
			}
			kind, name, err := resource(args)
			if err != nil {
				return err
			}
			c, err := flags.connect()
			if err != nil {
				return err
			}
			if err := c.installed(); err != nil {
				return err
			}
			if kind == kindNode {
				return whyNode(cmd, c, name, output)
			}
			return whyPod(cmd, c, name, output)
		},
	}
	flags.register(cmd)
	cli.OutputFlag(cmd, &output, cli.Text, cli.JSON, cli.YAML)
	return cmd
}

func whyNode(cmd *cobra.Command, c *cluster, name, output string) error {
	nodes, _, err := c.nodes(cmd.Context(), which{name: name})
	if err != nil {
		return err
	}
	facts, err := c.facts(cmd.Context(), warner(cmd))
	if err != nil {
		return err
	}
	report := facts.view.Nodes(nodes, facts.rules)[0]
	if output != cli.Text {
		return cli.Print(cmd.OutOrStdout(), output, report)
	}
	return inspect.WriteNode(cmd.OutOrStdout(), &report, facts.view.Now)
}

func whyPod(cmd *cobra.Command, c *cluster, name, output string) error {
	ctx := cmd.Context()
	pod, err := c.core.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get pod %s/%s: %w", c.namespace, name, err)
	}
	policies, err := c.gatePolicies(ctx)
	if err != nil {
		return err
	}
	nodes, _, err := c.nodes(ctx, which{})
	if err != nil {
		return err
	}
	around, err := c.facts(ctx, warner(cmd))
	if err != nil {
		return err
	}
	fleet, err := c.fleet(ctx, nodes)
	if err != nil {
		return err
	}
	live := gatescontroller.Live{Typed: c.core, Dynamic: c.dynamic, Warn: warner(cmd)}
	known := live.Complete(ctx, gates.Facts{Fleet: fleet, Exists: c.exists(ctx)})
	report, err := around.view.Pod(pod, policies, known, around.view.Nodes(nodes, around.rules))
	if err != nil {
		return err
	}
	pulls, err := list[prepullv1alpha1.PrepullPolicy](ctx, c.dynamic, "prepullpolicies")
	if err != nil {
		return err
	}
	if report.Pulling, err = gatescontroller.PulledFor(pod, pulls); err != nil {
		return err
	}
	if output != cli.Text {
		return cli.Print(cmd.OutOrStdout(), output, report)
	}
	return inspect.WritePod(cmd.OutOrStdout(), &report, around.view.Now)
}

// fleet knows the nodes and the room that pods take on them.
func (c *cluster) fleet(ctx context.Context, nodes []corev1.Node) (*gates.Fleet, error) {
	fleet := gates.NewFleet()
	for i := range nodes {
		fleet.SetNode(gates.ReadNode(&nodes[i]))
	}
	options := metav1.ListOptions{Limit: pageSize, FieldSelector: "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}
	for {
		pods, err := c.core.CoreV1().Pods("").List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			fleet.Bind(pod.UID, pod.Spec.NodeName, room.Takes(pod))
		}
		if options.Continue = pods.Continue; options.Continue == "" {
			return fleet, nil
		}
	}
}
