package agent

import (
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"headstart.dev/agent/probe"
	"headstart.dev/agent/timeline"
)

func TestWhatARuleAsksForIsPublishedAndNotWaitedFor(t *testing.T) {
	mine := Prober{Name: "mine", Condition: "headstart.dev/MineReady"}
	recorder := timeline.NewRecorder(filepath.Join(t.TempDir(), TimelineFile), "n", "boot")
	s := newState(Config{}, []Prober{mine}, recorder, newMetrics(prometheus.NewRegistry()))
	settled := func() bool {
		done, err := s.settled(false)
		require.NoError(t, err)
		return done
	}
	require.False(t, settled(), "the config's own probe has not been looked at")
	s.observeProbe(mine, probe.Result{Status: probe.True, Reason: probe.ReasonReady})
	require.True(t, settled())

	ruled := Prober{Name: "kube-system/agent", Condition: "headstart.dev/DaemonSetReady.kube-system.agent"}
	s.addProbe(ruled)
	require.Len(t, s.conditions(), 3, "images, mine, and the rule's")
	require.True(t, settled(), "a rule that comes later makes no node's boot longer")
	s.removeProbe(ruled.Condition)
	require.Len(t, s.conditions(), 2)
}
