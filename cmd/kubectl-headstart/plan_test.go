package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/cmd/internal/cli"
)

const poolManifest = `
kind: PriorityClass
apiVersion: scheduling.k8s.io/v1
metadata: {name: x}
value: -1
---
apiVersion: headstart.dev/v1alpha1
kind: WarmPool
metadata: {name: web, namespace: prod}
spec:
  shape: {resources: {cpu: "1"}}
  min: 2
  max: 50
  adaptive: {quantile: "0.95", headroom: 10%}
`

func planCommand(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(append([]string{"plan"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPlan(t *testing.T) {
	out, err := planCommand(t, poolManifest, "-f", "-", "--demand", "../../deploy/warmpool/demand/batch.csv", "--step", "10m")
	require.NoError(t, err)
	require.Contains(t, out, "web against")
	require.Contains(t, out, "fixed 15%")
	require.NotContains(t, out, "BAD HOURS")

	out, err = planCommand(t, poolManifest, "-f", "-", "--demand", "trace:batch", "-o", "wide", "--step", "10m")
	require.NoError(t, err)
	require.Contains(t, out, "BAD HOURS")

	out, err = planCommand(t, poolManifest, "-f", "-", "--demand", "trace:batch", "-o", "json", "--per-replica", "2", "--step", "10m")
	require.NoError(t, err)
	require.Contains(t, out, `"shows": "forty pods at once`)
	require.Contains(t, out, `"peakReplicas": 22`)
}

func TestPlanReadsTheShippedPools(t *testing.T) {
	for _, name := range []string{"warmpool.yaml", "self-sizing.yaml"} {
		_, err := planCommand(t, "", "-f", "../../deploy/warmpool/"+name, "--demand", "trace:batch", "--step", "10m")
		require.NoError(t, err)
	}
}

func TestPlanRefuses(t *testing.T) {
	cases := map[string]struct {
		stdin string
		args  []string
		usage bool
		says  string
	}{
		"no files":              {"", nil, true, "--help"},
		"two standard inputs":   {"", []string{"-f", "-", "--demand", "-"}, true, "both"},
		"an unknown form":       {"", []string{"-f", "-", "--demand", "trace:daily", "-o", "pdf"}, true, "html"},
		"an unknown trace":      {poolManifest, []string{"-f", "-", "--demand", "trace:weekly"}, false, "daily"},
		"an unknown field":      {strings.Replace(poolManifest, "min:", "minimum:", 1), []string{"-f", "-", "--demand", "trace:daily"}, false, "minimum"},
		"no WarmPool":           {"kind: Pod\n", []string{"-f", "-", "--demand", "trace:daily"}, false, "no object of kind WarmPool"},
		"a missing file":        {poolManifest, []string{"-f", "-", "--demand", "nowhere.csv"}, false, "nowhere.csv"},
		"a quantile of three":   {strings.Replace(poolManifest, "0.95", "3", 1), []string{"-f", "-", "--demand", "trace:daily"}, false, "from 0 to 1"},
		"replicas of no size":   {poolManifest, []string{"-f", "-", "--demand", "trace:daily", "--per-replica", "0"}, true, "above 0"},
		"a generated trace":     {"", []string{"--generate", "weekly"}, true, "daily"},
		"an argument too many":  {"", []string{"extra"}, false, "extra"},
		"a flag nobody defined": {"", []string{"--deman", "x"}, true, "--help"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := planCommand(t, tc.stdin, tc.args...)
			require.ErrorContains(t, err, tc.says)
			if tc.usage {
				require.Equal(t, 2, cli.ExitCode(err))
			}
		})
	}
}
