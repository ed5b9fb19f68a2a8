package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"headstart.dev/agent"
	"headstart.dev/agent/probe"
	"headstart.dev/agent/probe/nvml"
	"headstart.dev/cmd/internal/cli"
)

// probeResult is one line of the output of the probe command.
type probeResult struct {
	Name      string `json:"name"`
	Condition string `json:"condition"`
	probe.Result
}

// errNotReady makes the exit code 1 after the results have been printed.
var errNotReady = errors.New("not everything is ready")

func newProbeCommand() *cobra.Command {
	var config, nvmlMode string
	cmd := &cobra.Command{
		Use:   "probe cni|csi|gpu|efa|all|NAME",
		Short: "Runs probes once and prints what they found as JSON",
		Long: "probe runs the config's probes of one family, the one of a name, or all, once, without thresholds and delays. Without\n" +
			"a config file it probes the CNI plugin and the GPUs with their defaults.\n\n" +
			"Exit codes: 0 all are ready, or not applicable (a GPU probe on a node without a GPU); 1 one is not ready; 2 the command\n" +
			"line or the config cannot be understood.",
		Example: "  headstart-agent probe cni\n" +
			"  headstart-agent probe all --config /etc/headstart/agent.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("write what to probe: cni, csi, gpu, efa, all or the name of a probe; see 'headstart-agent probe --help'")
			}
			return nil
		},
		ValidArgs: []string{"cni", "csi", "gpu", "efa", "all"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if nvmlMode != "" {
				return runNVML(cmd, nvmlMode)
			}
			cfg, err := agent.Load(config)
			if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
				cfg, err = agent.Default(), nil
			}
			if err != nil {
				return cli.Usage(err)
			}
			probes, err := agent.Probers(cfg, agent.NewCSINode(cfg))
			if err != nil {
				return cli.Usage(err)
			}
			results, err := probeOnce(cmd, probes, args[0])
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			if err := encoder.Encode(results); err != nil {
				return fmt.Errorf("print results: %w", err)
			}
			for _, result := range results {
				if !result.Status.Satisfied() {
					return errNotReady
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig, "the agent's config `file`")
	cmd.Flags().StringVar(&nvmlMode, strings.TrimPrefix(agent.NVMLFlag, "--"), "", "what the agent runs itself with as a child")
	_ = cmd.Flags().MarkHidden(strings.TrimPrefix(agent.NVMLFlag, "--"))
	return cmd
}

// runNVML is the child process that loads NVIDIA's library: it may hang or crash.
func runNVML(cmd *cobra.Command, mode string) error {
	switch mode {
	case agent.NVMLReport:
		return json.NewEncoder(cmd.OutOrStdout()).Encode(nvml.Read(""))
	case agent.NVMLEvents:
		return nvml.Follow(cmd.Context(), "", cmd.OutOrStdout())
	}
	return cli.Usagef("%s %q: write %s or %s", agent.NVMLFlag, mode, agent.NVMLReport, agent.NVMLEvents)
}

// probeOnce runs the probes of a family, the one of a name, or all.
func probeOnce(cmd *cobra.Command, probes []agent.Prober, family string) ([]probeResult, error) {
	results := []probeResult{}
	for _, p := range probes {
		if family != "all" && family != string(p.Type) && family != p.Name {
			continue
		}
		results = append(results, probeResult{Name: p.Name, Condition: p.Condition, Result: p.Once(cmd.Context())})
	}
	switch {
	case len(results) > 0 || family == "all":
	case agent.KnownProbeType(family):
		return nil, cli.Usagef("the config has no probe of type %s: add one under probes", family)
	default:
		names := make([]string, 0, len(probes))
		for _, p := range probes {
			names = append(names, p.Name)
		}
		return nil, cli.Usagef("probe %q: the config has no probe of that type or name: it has %s", family, strings.Join(names, ", "))
	}
	return results, nil
}
