package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/agent/timeline"
	"headstart.dev/cmd/internal/cli"
	"headstart.dev/readiness"
	"headstart.dev/readiness/inspect"
)

func newTimelineCommand() *cobra.Command {
	var (
		flags  clusterFlags
		output string
		window time.Duration
	)
	cmd := &cobra.Command{
		Use:   "timeline NODE",
		Short: "Draws the boot of a node, with the pods that it started",
		Example: "  kubectl headstart timeline ip-10-0-0-1.ec2.internal\n" +
			"  kubectl headstart timeline ip-10-0-0-1.ec2.internal -o html >boot.html",
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, err := resource(args)
			if err != nil || kind != kindNode {
				return cli.Usagef("%q: want the name of a node", args[0])
			}
			c, err := flags.connect()
			if err != nil {
				return err
			}
			if window < 0 {
				return cli.Usagef("--window %s: want a duration of at least 0, such as 1m", window)
			}
			return drawTimeline(cmd, c, name, output, window)
		},
	}
	cmd.Flags().DurationVar(&window, "window", 0, "how much after the end of the boot is drawn, with the pods that were scheduled in it (default: half of the boot, at least 10s)")
	flags.register(cmd)
	cli.OutputFlag(cmd, &output, cli.Text, cli.JSON, cli.YAML, cli.HTML)
	return cmd
}

func drawTimeline(cmd *cobra.Command, c *cluster, name, output string, window time.Duration) error {
	nodes, _, err := c.nodes(cmd.Context(), which{name: name})
	if err != nil {
		return err
	}
	text, ok := nodes[0].Annotations[readiness.AnnotationTimeline]
	if !ok {
		return fmt.Errorf("node %s has no annotation %s: no agent has published its boot", name, readiness.AnnotationTimeline)
	}
	boot, err := timeline.Parse(text)
	if err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	pods, err := c.podsOf(cmd, name)
	if err != nil {
		return err
	}
	inspect.AddReleases(&boot, &nodes[0])
	if !cmd.Flags().Changed("window") {
		window = inspect.Window(&boot)
	}
	if more := inspect.AddPods(&boot, pods, window); more > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: pods that came later are not drawn: %d; --window draws more than the %s after the boot\n", more, window.Round(time.Second))
	}
	return writeTimeline(cmd.OutOrStdout(), boot, output)
}

func writeTimeline(w io.Writer, boot timeline.Timeline, output string) error {
	switch output {
	case cli.JSON, cli.YAML:
		return cli.Print(w, output, boot)
	case cli.HTML:
		return boot.WriteHTML(w)
	default:
		return boot.WriteText(w)
	}
}

func (c *cluster) podsOf(cmd *cobra.Command, node string) ([]corev1.Pod, error) {
	pods, err := c.core.CoreV1().Pods("").List(cmd.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return nil, fmt.Errorf("list pods of node %q: %w", node, err)
	}
	return pods.Items, nil
}
