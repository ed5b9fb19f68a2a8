package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const configHead = "apiVersion: agent.headstart.dev/v1alpha1\nkind: AgentConfig\n"

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(configHead+content), 0o600))
		return path
	}
	typo := write("typo.yaml", "imagse: []\n")
	wrong := write("wrong.yaml", "probes: [{name: x, type: systemd, unit: x}]\n")
	full := write("full.yaml", "pull: {minFree: 110%}\n")
	good := write("good.yaml", "probes: [{name: here, type: file, path: "+dir+"}, {name: absent, type: file, path: /nonexistent}]\n")
	for name, tc := range map[string]struct {
		args []string
		code int
	}{
		"help":                           {[]string{"--help"}, 0},
		"no command":                     {[]string{}, 0},
		"version":                        {[]string{"version", "-o", "json"}, 0},
		"the version by a flag":          {[]string{"--version"}, 0},
		"help of an unknown command":     {[]string{"help", "pul"}, 2},
		"an unknown command":             {[]string{"pul", "nginx:1.29"}, 2},
		"an unknown command with a flag": {[]string{"pul", "--pin"}, 2},
		"an unknown flag":                {[]string{"run", "--confg", good}, 2},
		"an argument too many, run":      {[]string{"run", "now"}, 2},
		"an argument too many, timeline": {[]string{"timeline", "node-1"}, 2},
		"an argument too many, install":  {[]string{"install", "/host"}, 2},
		"an argument too many, probe":    {[]string{"probe", "cni", "csi"}, 2},
		"no image":                       {[]string{"pull"}, 2},
		"an unknown log level":           {[]string{"run", "--log-level", "loud"}, 2},
		"an unknown output":              {[]string{"pull", "--output", "x", "nginx"}, 2},
		"a config that is not there":     {[]string{"run", "--config", filepath.Join(dir, "absent.yaml")}, 2},
		"a config with a typo":           {[]string{"run", "--config", typo}, 2},
		"a config that cannot be":        {[]string{"run", "--config", wrong}, 2},
		"a size that cannot be":          {[]string{"run", "--config", full}, 2},
		"a flag that cannot be":          {[]string{"run", "--config", good, "--node-name", "A B"}, 2},
		"a probe's config with a typo":   {[]string{"probe", "all", "--config", typo}, 2},
		"a probe by name, ready":         {[]string{"probe", "here", "--config", good}, 0},
		"a probe by name, not ready":     {[]string{"probe", "absent", "--config", good}, 1},
		"a probe that nobody named":      {[]string{"probe", "other", "--config", good}, 2},
		"a family without a probe":       {[]string{"probe", "csi", "--config", good}, 2},
		"all, of which one is not ready": {[]string{"probe", "all", "--config", good}, 1},
		"no timeline":                    {[]string{"timeline", "--state-dir", dir}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.code, run(t.Context(), tc.args))
		})
	}
}

func TestAProbeOfWhatTheNodeDoesNotHaveIsNoFailure(t *testing.T) {
	config := filepath.Join(t.TempDir(), "agent.yaml")
	require.NoError(t, os.WriteFile(config, []byte(configHead+"probes: [{name: gpu, type: gpu}, {name: efa, type: efa}]\n"), 0o600))
	require.Equal(t, 0, run(t.Context(), []string{"probe", "all", "--config", config}))
}
