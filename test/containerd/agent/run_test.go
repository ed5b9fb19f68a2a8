// Package agent_test runs the agent's own program against a real containerd.
package agent_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent"
	"headstart.dev/agent/timeline"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

// settleTime bounds what takes a second or two on an idle machine.
const settleTime = time.Minute

const conflist = `{"cniVersion":"1.0.0","name":"testnet","plugins":[{"type":"bridge","bridge":"hs-agent0","ipam":{"type":"host-local","ranges":[[{"subnet":"10.211.0.0/24"}]]}}]}`

// build builds the agent's program.
func build(t *testing.T) string {
	t.Helper()
	bin, err := testenv.BuildCommand(t.Context(), "headstart-agent")
	require.NoError(t, err)
	return bin
}

func TestOncePullsAndSeesTheNetworkWithoutAnAPIServer(t *testing.T) {
	testenv.RequireRoot(t)
	registry := testenv.StartRegistry(t, testenv.RegistryConfig{})
	image, err := images.Build(t.Context(), images.Sized("agent", 2<<20, 1<<20))
	require.NoError(t, err)
	ref, _, err := registry.Push(t.Context(), "team/app:v1", image)
	require.NoError(t, err)
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: registry})

	dir := t.TempDir()
	config := filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
stateDir: %s/state
containerd: {address: %s}
images:
- {image: %q, priority: 100, required: true, pin: true}
probes:
- {name: cni, type: cni, confDir: %s}
metrics: {bindAddress: "0"}
`, dir, ctd.Address(), ref, ctd.CNIConfDir()), 0o600))

	var log bytes.Buffer
	run := exec.CommandContext(t.Context(), build(t), "run", "--once", "--config", config)
	run.Stderr = &log
	require.NoError(t, run.Start())
	done := make(chan error, 1)
	go func() { done <- run.Wait() }()

	file := filepath.Join(dir, "state", agent.TimelineFile)
	require.Eventually(t, func() bool {
		boot, err := timeline.Load(file)
		if err != nil {
			return false
		}
		images, ok := boot.Find(timeline.Images, "")
		return ok && !images.Running()
	}, settleTime, 20*time.Millisecond, "the image is pulled while there is no network: %s", &log)

	writeAside(t, ctd.CNIConfDir(), "10-test.conflist", conflist)
	select {
	case err := <-done:
		require.NoError(t, err, "%s", &log)
	case <-time.After(settleTime):
		t.Fatalf("the agent did not end: %s", &log)
	}

	boot, err := timeline.Load(file)
	require.NoError(t, err)
	pulled, ok := boot.Find(timeline.Image, ref)
	require.True(t, ok)
	require.False(t, pulled.Running())
	var stages []string
	for _, stage := range pulled.Stages {
		stages = append(stages, stage.Name)
	}
	require.Subset(t, stages, []string{"resolve", "fetch", "inflate", "write", "commit"}, "where the pull's time went")
	cni, ok := boot.Find(timeline.Probe, "cni")
	require.True(t, ok)
	require.True(t, cni.End.After(pulled.End))
	_, ok = boot.Find(timeline.Containerd, "")
	require.True(t, ok)
}

// writeAside puts a file in place by rename, as CNI plugins do.
func writeAside(t *testing.T, dir, name, content string) {
	t.Helper()
	temp := filepath.Join(dir, "."+name)
	require.NoError(t, os.WriteFile(temp, []byte(content), 0o600))
	require.NoError(t, os.Rename(temp, filepath.Join(dir, name)))
}
