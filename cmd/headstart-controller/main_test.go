package main

import (
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/readiness/inspect"
)

func TestBadFlagsSayWhatToWrite(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"an unknown form of rule":    {[]string{"--rules=native,mine"}, "any of native, guide, upstream"},
		"an unknown controller":      {[]string{"--controllers=gates,mine"}, "any of readiness, gates, prepull, warmpool"},
		"an unknown log level":       {[]string{"--log-level=loud"}, "none of info, debug, trace"},
		"no namespace for the lease": {[]string{"--leader-elect-namespace="}, "--leader-elect=false"},
		"an unknown flag":            {[]string{"--nonsense"}, "--help"},
		"an argument":                {[]string{"start"}, `unknown command "start"; see`},
		"a typo":                     {[]string{"upgrade-crd"}, "did you mean upgrade-crds?"},
		"an argument of a command":   {[]string{"clean-up", "now"}, "takes no argument"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			root := newRootCommand()
			root.SetArgs(tc.args)
			err := root.ExecuteContext(t.Context())
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, 2, cli.ExitCode(err))
		})
	}
}

func TestVersionNeedsNoCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent")
	for _, args := range [][]string{{"version"}, {"version", "-o", "json"}, {"--version"}} {
		require.Zero(t, run(t.Context(), args), "%v", args)
	}
}

func TestUpstreamsFlagsAreAccepted(t *testing.T) {
	var o options
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.bind(f)
	require.NoError(t, f.Parse([]string{
		"--leader-elect", "--leader-election-namespace=nrr-system", "--metrics-secure", "--kube-api-qps=20", "--kube-api-burst=30",
		"--node-concurrent-reconciles=8", "--rule-concurrent-reconciles=2", "--enable-webhook", "--zap-devel", "--zap-log-level=debug",
	}))
	require.NoError(t, o.validate())
	require.Equal(t, "nrr-system", o.leaderNamespace)
	require.Equal(t, 8, o.upstream.nodeWorkers)
	require.Equal(t, []string{"enable-webhook", "rule-concurrent-reconciles", "zap-devel", "zap-log-level"}, o.upstream.ignored())
}

func TestNoClusterIsSaidInOneLine(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err := loadConfig(&options{})
	require.EqualError(t, err, "not in a pod, and no kubeconfig: name one with --kubeconfig")
}

// The plugin finds out by the lease whether a controller is alive.
func TestThePluginKnowsTheLease(t *testing.T) { require.Equal(t, inspect.LeaseName, leaseName) }
