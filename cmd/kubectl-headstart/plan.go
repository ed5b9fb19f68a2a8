package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool"
	"headstart.dev/gates/warmpool/plan"
	"headstart.dev/gates/warmpool/trace"
)

// planFlags are the command line of plan.
type planFlags struct {
	pool, demand, output, generate string
	perReplica, cost               float64
	model                          plan.Model
	incidents                      plan.Incidents
}

func newPlanCommand() *cobra.Command {
	var flags planFlags
	cmd := &cobra.Command{
		Use:   "plan -f WARMPOOL --demand FILE",
		Short: "Replays recorded demand against a WarmPool: who would have waited, at what cost",
		Long: "plan replays recorded demand against a WarmPool, beside no pool, a fixed pool of 15% of the peak and the guide's\n" +
			"cron pool, and says who would have waited how long, and at what cost.\n\n" +
			"The demand is CSV (time,replicas; RFC 3339 or Unix seconds; a line holds until the next one), the JSON of a\n" +
			"Prometheus range query, or a generated trace: " + generated() + ".",
		Example: "  kubectl headstart plan -f pool.yaml --demand demand.csv\n" +
			"  kubectl headstart plan -f pool.yaml --demand trace:daily -o html > plan.html\n" +
			"  # demand from Prometheus, in CPU cores, for replicas of one core:\n" +
			"  curl -sG http://prometheus:9090/api/v1/query_range -d step=60 -d start=... -d end=... \\\n" +
			"    --data-urlencode 'query=sum(kube_pod_container_resource_requests{namespace=\"prod\",resource=\"cpu\"})' |\n" +
			"    kubectl headstart plan -f pool.yaml --demand - --per-replica 1",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVarP(&flags.pool, "filename", "f", "", "WarmPool manifest, - for standard input")
	f.StringVar(&flags.demand, "demand", "", "demand: a CSV or Prometheus JSON file, - for standard input, or "+generated())
	f.StringVarP(&flags.output, "output", "o", "table", "table, wide, json or html")
	f.StringVar(&flags.generate, "generate", "", "print a generated trace as CSV and stop: "+strings.Join(trace.Kinds(), ", "))
	f.Float64Var(&flags.perReplica, "per-replica", 1, "how much of the demand's unit one replica is")
	f.Float64Var(&flags.cost, "cost-per-replica-hour", 0.15, "used where the WarmPool has no budget; the guide's: 1,080 a month for ten")
	f.DurationVar(&flags.model.Lead, "lead", warmpool.DefaultLead, "from a node asked for to a pod able to run on it")
	f.DurationVar(&flags.model.WarmStart, "warm-start", 2*time.Second, "from a pod created to running on a warm replica")
	f.DurationVar(&flags.model.Linger, "consolidate-after", 30*time.Second, "how long an empty node is kept")
	f.DurationVar(&flags.model.Step, "step", time.Minute, "grain of the replay")
	f.DurationVar(&flags.model.WarmUp, "warm-up", -1, "beginning of the demand that only teaches (default: the adaptive window, at most half of the demand)")
	f.Lookup("warm-up").DefValue = "" // -1 means what the text says
	f.Float64Var(&flags.incidents.PerMonth, "incidents", 3, "incidents a month without a pool, for the ROI; the guide's example")
	f.Float64Var(&flags.incidents.Cost, "incident-cost", 5000, "what one incident costs; the guide's example")
	return cmd
}

func generated() string {
	return "trace:" + strings.Join(trace.Kinds(), ", trace:")
}

func (p planFlags) run(cmd *cobra.Command) error {
	if p.generate != "" {
		demand, err := trace.Generate(p.generate)
		if err != nil {
			return cli.Usagef("--generate: %w", err)
		}
		return demand.WriteCSV(cmd.OutOrStdout())
	}
	write, err := p.writer()
	if err != nil {
		return err
	}
	in, err := p.input(cmd.InOrStdin())
	if err != nil {
		return err
	}
	report, err := plan.Run(in)
	if err != nil {
		return err
	}
	return write(report, cmd.OutOrStdout())
}

func (p planFlags) writer() (func(plan.Report, io.Writer) error, error) {
	switch p.output {
	case "table", cli.Text:
		return plan.Report.WriteText, nil
	case cli.Wide:
		return plan.Report.WriteWide, nil
	case cli.JSON:
		return plan.Report.WriteJSON, nil
	case cli.HTML:
		return plan.Report.WriteHTML, nil
	}
	return nil, cli.Usagef("-o %q: want table, wide, json or html", p.output)
}

func (p planFlags) input(stdin io.Reader) (plan.Input, error) {
	in := plan.Input{Source: p.demand, Model: p.model, CostPerReplicaHour: p.cost, Incidents: p.incidents}
	switch {
	case p.pool == "" || p.demand == "":
		return in, cli.Usagef("want -f WARMPOOL and --demand FILE; see 'kubectl headstart plan --help'")
	case p.pool == "-" && p.demand == "-":
		return in, cli.Usagef("-f and --demand cannot both be standard input")
	case !(p.perReplica > 0):
		return in, cli.Usagef("--per-replica %v: want a number above 0", p.perReplica)
	}
	pool, err := readWarmPool(p.pool, stdin)
	if err != nil {
		return in, err
	}
	in.Pool = pool.Name
	if in.Config, err = warmpool.NewConfig(pool.Spec); err != nil {
		return in, fmt.Errorf("%s: %w", p.pool, err)
	}
	demand, err := readDemand(p.demand, stdin)
	if err != nil {
		return in, err
	}
	in.Demand = demand.Scale(p.perReplica)
	in.Shows = trace.Shows(strings.TrimPrefix(p.demand, "trace:"))
	if in.Model.WarmUp < 0 {
		in.Model.WarmUp = 0
		if a := in.Config.Adaptive; a != nil {
			in.Model.WarmUp = min(a.Window, demand.Span()/2).Truncate(in.Model.Step)
		}
	}
	return in, nil
}

// readWarmPool reads the first WarmPool of a manifest. Unknown fields are errors, as they are in the API server.
func readWarmPool(name string, stdin io.Reader) (v1alpha1.WarmPool, error) {
	var pool v1alpha1.WarmPool
	text, err := readFile(name, stdin, maxValuesBytes)
	if err != nil {
		return pool, fmt.Errorf("read WarmPool: %w", err)
	}
	for document := range strings.SplitSeq("\n"+string(text), "\n---") {
		var kind struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			return pool, fmt.Errorf("read WarmPool %q: %w", name, err)
		}
		if kind.Kind != "WarmPool" {
			continue
		}
		// The type's own decoding forgives what a manifest must not have.
		type strict v1alpha1.WarmPool
		if err := yaml.UnmarshalStrict([]byte(document), (*strict)(&pool)); err != nil {
			return pool, fmt.Errorf("read WarmPool %q: %w", name, err)
		}
		return pool, nil
	}
	return pool, fmt.Errorf("read WarmPool %q: it holds no object of kind WarmPool", name)
}

func readDemand(name string, stdin io.Reader) (trace.Trace, error) {
	if kind, ok := strings.CutPrefix(name, "trace:"); ok {
		return trace.Generate(kind)
	}
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read demand: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	demand, err := trace.Parse(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return demand, nil
}

func readFile(name string, stdin io.Reader, limit int64) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, limit))
}
