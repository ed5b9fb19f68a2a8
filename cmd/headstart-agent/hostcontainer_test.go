package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
)

func TestHostContainerSwitchesItselfOffWhenAllIsDone(t *testing.T) {
	userData := filepath.Join(t.TempDir(), "user-data")
	require.NoError(t, os.WriteFile(userData, []byte("apiVersion: agent.headstart.dev/v1alpha1\nkind: AgentConfig\n"), 0o600))
	var off []string
	record := func(_ context.Context, container string) error {
		off = append(off, container)
		return nil
	}
	require.NoError(t, runHostContainer(t.Context(), userData, record, logr.Discard()))
	require.Equal(t, []string{"headstart"}, off)

	stopped, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, runHostContainer(stopped, userData, record, logr.Discard()))
	require.Len(t, off, 1, "one that is told to stop comes back")
}

func TestPendingSettles(t *testing.T) {
	p := newPending([]prepull.Image{{Ref: "a"}, {Ref: "b"}})
	settled := func() bool {
		select {
		case <-p.settled:
			return true
		default:
			return false
		}
	}
	for _, s := range []prepull.ImageStatus{
		{Image: prepull.Image{Ref: "a"}, State: prepull.StatePulling}, {Image: prepull.Image{Ref: "a"}, State: prepull.StateWarm}, {Image: prepull.Image{Ref: "a"}, State: prepull.StateWarm},
	} {
		p.observe(s)
		require.False(t, settled())
	}
	p.observe(prepull.ImageStatus{Image: prepull.Image{Ref: "b"}, State: prepull.StateFailed})
	require.True(t, settled(), "what will not come by itself is not waited for")
}

func TestHostContainerIsToldByItsUserData(t *testing.T) {
	dir := t.TempDir()
	userData := filepath.Join(dir, "user-data")
	require.False(t, inHostContainer(defaultConfig, userData))
	require.NoError(t, os.WriteFile(userData, nil, 0o600))
	require.False(t, inHostContainer(filepath.Join(dir, "agent.yaml"), userData), "a config that is named is meant")
}
