package agent

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"headstart.dev/agent/probe"
	"headstart.dev/agent/timeline"
	"headstart.dev/prepull"
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

func TestATimelineSaysWhereAPullsTimeWent(t *testing.T) {
	recorder := timeline.NewRecorder(filepath.Join(t.TempDir(), TimelineFile), "n", "boot")
	image := prepull.Image{Ref: "web:v1"}
	s := newState(Config{Images: []prepull.Image{image}}, nil, recorder, newMetrics(prometheus.NewRegistry()))
	status := prepull.ImageStatus{Image: image, Name: "docker.io/library/web:v1", State: prepull.StatePulling, Started: time.Now()}
	s.observeImage(status)
	status.State, status.Engine, status.Finished = prepull.StateWarm, "direct", status.Started.Add(3*time.Second)
	status.Stages = []prepull.Stage{{Name: "resolve", Duration: 30 * time.Millisecond}, {Name: "fetch", Duration: 4500 * time.Millisecond}}
	s.observeImage(status)
	pulled, ok := recorder.Timeline().Find(timeline.Image, status.Name)
	require.True(t, ok)
	require.Equal(t, []timeline.Stage{{Name: "resolve", Seconds: 0.03}, {Name: "fetch", Seconds: 4.5}}, pulled.Stages)
}

func TestWhatDoesNotApplyIsNoConditionAndNotWaitedFor(t *testing.T) {
	gpu := Prober{Name: "gpu", Condition: "headstart.dev/GPUReady"}
	recorder := timeline.NewRecorder(filepath.Join(t.TempDir(), TimelineFile), "n", "boot")
	s := newState(Config{}, []Prober{gpu}, recorder, newMetrics(prometheus.NewRegistry()))
	recorder.Begin(timeline.Probe, "gpu")
	s.observeProbe(gpu, probe.Result{Status: probe.NotApplicable, Reason: probe.ReasonNoDevices})
	require.Len(t, s.conditions(), 1, "the images alone")
	require.Equal(t, []string{gpu.Condition}, s.Desired(time.Now()).Gone, "what an earlier agent wrote goes")
	done, err := s.settled(false)
	require.NoError(t, err)
	require.True(t, done)
	_, waited := recorder.Timeline().Find(timeline.Probe, "gpu")
	require.False(t, waited)

	s.observeProbe(gpu, probe.Result{Status: probe.False, Reason: probe.ReasonDriverNotLoaded})
	require.Len(t, s.conditions(), 2, "a GPU that comes later is looked at")
	require.Empty(t, s.Desired(time.Now()).Gone)
}

func TestEveryPhaseIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	recorder := timeline.NewRecorder(filepath.Join(t.TempDir(), TimelineFile), "n", "boot")
	s := newState(Config{}, nil, recorder, newMetrics(registry))
	start := time.Unix(1000, 0)
	for i, name := range timeline.Names() {
		at := start.Add(time.Duration(i) * time.Second)
		recorder.Record(timeline.Phase{Name: name, Start: at, End: at}) // moments, all of them
	}
	s.observePhases()
	s.observePhases()
	families, err := registry.Gather()
	require.NoError(t, err)
	seen := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "headstart_node_phase_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			require.Equal(t, uint64(1), m.GetHistogram().GetSampleCount(), m.GetLabel())
			seen[m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleSum()
		}
	}
	for i, name := range timeline.Names() {
		require.InDelta(t, float64(i), seen[string(name)], 0.001, name)
	}
}
