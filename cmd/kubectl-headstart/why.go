package main

import (
	"context"
	"fmt"
	"strings"
	"time"

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
		Use:   "why pod/POD | node/NODE",
		Short: "Says why a pod or a node is held, since when, and what would release it",
		Example: "  kubectl headstart why node/ip-10-0-0-1.ec2.internal\n" +
			"  kubectl headstart why -n shop pod/web-7d4b9 -o json",
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, ok := strings.Cut(args[0], "/")
			if !ok || name == "" {
				return cli.Usagef("%q: want pod/NAME or node/NAME", args[0])
			}
			c, err := flags.connect()
			if err != nil {
				return err
			}
			switch kind {
			case "node", "nodes", "no":
				return whyNode(cmd, c, name, output, time.Now())
			case "pod", "pods", "po":
				return whyPod(cmd, c, name, output, time.Now())
			}
			return cli.Usagef("%q: want pod/NAME or node/NAME", args[0])
		},
	}
	flags.register(cmd)
	cli.OutputFlag(cmd, &output, "text", "json")
	return cmd
}

func whyNode(cmd *cobra.Command, c *cluster, name, output string, now time.Time) error {
	nodes, err := c.nodes(cmd.Context(), name)
	if err != nil {
		return err
	}
	rules, err := c.rules(cmd.Context(), warner(cmd))
	if err != nil {
		return err
	}
	report := inspect.Nodes(nodes, rules, now)[0]
	if output == "json" {
		return cli.Print(cmd.OutOrStdout(), cli.JSON, report)
	}
	return inspect.WriteNode(cmd.OutOrStdout(), &report, now)
}

func whyPod(cmd *cobra.Command, c *cluster, name, output string, now time.Time) error {
	ctx := cmd.Context()
	pod, err := c.core.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get pod %s/%s: %w", c.namespace, name, err)
	}
	policies, err := c.gatePolicies(ctx)
	if err != nil {
		return err
	}
	nodes, err := c.nodes(ctx, "")
	if err != nil {
		return err
	}
	rules, err := c.rules(ctx, warner(cmd))
	if err != nil {
		return err
	}
	fleet, err := c.fleet(ctx, nodes)
	if err != nil {
		return err
	}
	live := gatescontroller.Live{Typed: c.core, Dynamic: c.dynamic, Warn: warner(cmd)}
	facts := live.Complete(ctx, gates.Facts{Fleet: fleet, Exists: c.exists(ctx)})
	report, err := inspect.Pod(pod, policies, facts, inspect.Nodes(nodes, rules, now), now)
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
	if output == "json" {
		return cli.Print(cmd.OutOrStdout(), cli.JSON, report)
	}
	return inspect.WritePod(cmd.OutOrStdout(), &report, now)
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
