package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/internal/columns"
	"headstart.dev/readiness/inspect"
)

// statusFlags are the command line of status.
type statusFlags struct {
	cluster                clusterFlags
	of                     which
	held, watch, noHeaders bool
	output                 string
}

func newStatusCommand() *cobra.Command {
	var s statusFlags
	cmd := &cobra.Command{
		Use:   "status [NODE]",
		Short: "Shows nodes, their conditions, and what still holds them",
		Long: "status shows one line a node: how many of the conditions that its agent has published are True, which ones are not\n" +
			"(probes of your own too), and what still holds it. It exits with 1 where the CRDs are not installed, and says so when\n" +
			"no controller is alive.",
		Example: "  kubectl headstart status\n" +
			"  kubectl headstart status -l karpenter.sh/nodepool=web --held -w\n" +
			"  kubectl headstart status ip-10-0-0-1.ec2.internal -o yaml",
		Args: cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.parse(args); err != nil {
				return err
			}
			c, err := s.cluster.connect()
			if err != nil {
				return err
			}
			if err := c.installed(); err != nil {
				return err
			}
			if s.watch {
				return s.follow(cmd, c)
			}
			return s.run(cmd, c)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&s.of.selector, "selector", "l", "", "only nodes with these `labels`, such as karpenter.sh/nodepool=web")
	flags.BoolVar(&s.held, "held", false, "only nodes that are held")
	flags.BoolVarP(&s.watch, "watch", "w", false, "then show each change")
	flags.BoolVar(&s.noHeaders, "no-headers", false, "only the rows")
	s.cluster.register(cmd)
	cli.OutputFlag(cmd, &s.output, cli.Text, cli.Wide, cli.JSON, cli.YAML, cli.Name)
	return cmd
}

func (s *statusFlags) parse(args []string) error {
	if _, err := labels.Parse(s.of.selector); err != nil {
		return cli.Usagef("--selector %q: %w", s.of.selector, err)
	}
	if len(args) == 0 {
		return nil
	}
	kind, name, err := resource(args)
	if err != nil || kind != kindNode {
		return cli.Usagef("%q: want the name of a node", strings.Join(args, " "))
	}
	if s.of.selector != "" || s.held {
		return cli.Usagef("name a node, or choose by --selector and --held: not both")
	}
	s.of.name = name
	return nil
}

func (s *statusFlags) run(cmd *cobra.Command, c *cluster) error {
	ctx, warn := cmd.Context(), warner(cmd)
	nodes, _, err := c.nodes(ctx, s.of)
	if err != nil {
		return err
	}
	facts, err := c.facts(ctx, warn)
	if err != nil {
		return err
	}
	view := facts.view
	report := view.Nodes(nodes, facts.rules)
	if s.held {
		report = inspect.Held(report)
	}
	if err := s.print(cmd.OutOrStdout(), view, report); err != nil {
		return err
	}
	if len(report) == 0 && s.output != cli.JSON && s.output != cli.YAML {
		fmt.Fprintln(cmd.ErrOrStderr(), "No nodes found") // as kubectl does
	}
	if err := s.notice(cmd, view); err != nil {
		return err
	}
	if s.of != (which{}) || s.held || !s.table() || s.noHeaders {
		return nil
	}
	return c.writeLearned(ctx, cmd.OutOrStdout(), warn, view.Now)
}

// table says whether what is printed is one.
func (s *statusFlags) table() bool { return s.output == cli.Text || s.output == cli.Wide }

// width is what a line may have; 0: any.
func (s *statusFlags) width() int {
	if s.output == cli.Wide {
		return 0
	}
	return columns.Width
}

// print writes the reports: one node that was named is an object, all else a list.
func (s *statusFlags) print(out io.Writer, view inspect.View, report []inspect.Node) error {
	switch {
	case s.output == cli.Name:
		for i := range report {
			fmt.Fprintf(out, "node/%s\n", report[i].Name)
		}
		return nil
	case s.table():
		if len(report) == 0 {
			return nil
		}
		table := view.StatusTable(report, s.output == cli.Wide)
		table.Headless = s.noHeaders
		return table.Write(out, s.width())
	case s.of.name != "":
		return cli.Print(out, s.output, report[0])
	}
	return cli.Print(out, s.output, view.List(report))
}

// notice tells a person that no controller is alive: below the table, or on stderr where a program reads the output.
func (s *statusFlags) notice(cmd *cobra.Command, view inspect.View) error {
	text := view.Notice()
	if text == "" {
		return nil
	}
	if !s.table() || s.noHeaders {
		warner(cmd)(text)
		return nil
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", strings.Join(columns.Wrap(text, columns.Width), "\n"))
	return err
}

func warner(cmd *cobra.Command) func(string) {
	return func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "warning:", text) }
}

// once warns of each text once: what is looked at again and again would be told of as often.
func once(warn func(string)) func(string) {
	told := map[string]bool{}
	return func(text string) {
		if !told[text] {
			told[text] = true
			warn(text)
		}
	}
}
