package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/cmd/internal/cli"
)

// command runs one command line in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := newRootCommand()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	code = cli.Execute(t.Context(), root, args)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a typo":                        {[]string{"statsu"}, 2, "did you mean status?"},
		"a form that nobody knows":      {[]string{"status", "-o", "xml"}, 2, "want text, wide, json, yaml, name"},
		"a selector that cannot be":     {[]string{"status", "-l", "a=b=c"}, 2, "--selector"},
		"a node and a selector":         {[]string{"status", "n", "-l", "a=b"}, 2, "not both"},
		"a node and --held":             {[]string{"status", "n", "--held"}, 2, "not both"},
		"the status of a pod":           {[]string{"status", "pod/web"}, 2, "want the name of a node"},
		"two nodes":                     {[]string{"status", "a", "b", "c"}, 2, "at most 1 arg"},
		"why of nothing":                {[]string{"why"}, 2, "between 1 and 2"},
		"why of a name alone":           {[]string{"why", "web"}, 2, "want pod/web or node/web"},
		"why of a Deployment":           {[]string{"why", "deployment", "web"}, 2, `"deployment" is neither a pod nor a node`},
		"why of two pods":               {[]string{"why", "pod/a", "pod/b"}, 2, "want one pod"},
		"why of a pod without a name":   {[]string{"why", "pod/"}, 2, "want pod/NAME"},
		"the timeline of a pod":         {[]string{"timeline", "pod/web"}, 2, "want the name of a node"},
		"no kubeconfig":                 {[]string{"status"}, 1, "absent is not there: write --kubeconfig FILE or set KUBECONFIG"},
		"no kubeconfig, a flag of ours": {[]string{"why", "pod", "web"}, 1, "no kubeconfig: "},
		"a kubeconfig that is absent":   {[]string{"status", "--kubeconfig", "nowhere"}, 1, "nowhere: no such file"},
		"a time limit that is none":     {[]string{"status", "-s", "https://127.0.0.1:1", "--request-timeout", "soon"}, 1, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := command(t, tc.args...)
			require.Equal(t, tc.code, code, errs)
			require.Empty(t, out)
			require.Contains(t, errs, tc.says)
			require.NotContains(t, errs, "KUBERNETES_MASTER")
			require.Regexp(t, "^kubectl-headstart: [^\n]+\n$", errs, "one line")
		})
	}
}

func TestAKubeconfigThatDoesNotSayEnough(t *testing.T) {
	empty, two := filepath.Join(t.TempDir(), "empty"), filepath.Join(t.TempDir(), "two")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	require.NoError(t, os.WriteFile(two, []byte("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"+
		"contexts: [{name: prod, context: {cluster: c}}, {name: dev, context: {cluster: c}}]\n"), 0o600))
	t.Setenv("KUBECONFIG", empty)
	_, _, errs := command(t, "status")
	require.Contains(t, errs, "empty names no cluster")
	code, _, errs := command(t, "status", "--kubeconfig", two, "--context", "stage")
	require.Equal(t, 1, code)
	require.Contains(t, errs, `no context "stage": it has dev, prod`)
	code, _, errs = command(t, "status", "--kubeconfig", two, "--context", "dev")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "connection refused")
}

func TestResource(t *testing.T) {
	for _, args := range [][]string{{"pod/web"}, {"pod", "web"}, {"po/web"}, {"pods", "web"}, {"Pod", "web"}} {
		kind, name, err := resource(args)
		require.NoError(t, err)
		require.Equal(t, []string{kindPod, "web"}, []string{kind, name}, "%q", args)
	}
	for _, args := range [][]string{{"web"}, {"no/web"}, {"nodes", "web"}} {
		kind, name, err := resource(args)
		require.NoError(t, err)
		require.Equal(t, []string{kindNode, "web"}, []string{kind, name}, "%q", args)
	}
}

func TestTheServersClock(t *testing.T) {
	here := time.Date(2026, 11, 2, 8, 30, 0, 700_000_000, time.UTC)
	for name, tc := range map[string]struct {
		date string
		want time.Duration
	}{
		"the same second":  {"Mon, 02 Nov 2026 08:30:00 GMT", 0},
		"an hour behind":   {"Mon, 02 Nov 2026 09:30:00 GMT", time.Hour - 700*time.Millisecond},
		"no time":          {"", 0},
		"what is no date":  {"soon", 0},
		"a minute ahead":   {"Mon, 02 Nov 2026 08:29:00 GMT", -time.Minute - 700*time.Millisecond},
		"a slow answer":    {"Mon, 02 Nov 2026 08:29:59 GMT", 0},
		"two seconds late": {"Mon, 02 Nov 2026 08:29:58 GMT", -2*time.Second - 700*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			var c serverClock
			c.read(tc.date, here)
			require.Equal(t, tc.want, c.offset)
		})
	}
}
