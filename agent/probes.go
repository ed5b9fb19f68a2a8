package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"headstart.dev/agent/internal/systemd"
	"headstart.dev/agent/probe"
)

// Prober is one configured probe, ready to run.
type Prober struct {
	// Name is the probe's in the config, Condition the type that it is published under.
	Name, Condition string
	Type            ProbeType
	Checker         probe.Checker
	Settings        probe.Settings
	// source is what a rule asked for; a prober of the same condition and source is the same.
	source string
}

// Probers builds the probes of a config. csiNode tells what the kubelet has registered.
func Probers(cfg Config, csiNode *CSINode) ([]Prober, error) {
	out := make([]Prober, 0, len(cfg.Probes))
	for i, p := range cfg.Probes {
		checker, err := newChecker(cfg, p, csiNode)
		if err != nil {
			return nil, fmt.Errorf("probes[%d]: %w", i, err)
		}
		out = append(out, Prober{
			Name: p.Name, Condition: p.ConditionType(), Type: p.Type, Checker: checker,
			Settings: probe.Settings{
				InitialDelay: p.InitialDelay.Duration, Period: p.Period.Duration, Timeout: p.Timeout.Duration,
				SuccessThreshold: p.SuccessThreshold, FailureThreshold: p.FailureThreshold,
				Pending: pendingPeriod[p.Type], StopWhenReady: p.Mode == ModeBootstrapOnly,
				Dear: p.Type == ProbeGPU || p.Type == ProbeExec,
			},
		})
	}
	return out, nil
}

// Once looks once, without delay and thresholds.
func (p Prober) Once(ctx context.Context) probe.Result {
	ctx, cancel := context.WithTimeout(ctx, p.Settings.Timeout)
	defer cancel()
	return p.Checker.Check(ctx)
}

// The agent runs itself as the child that loads NVML, by a flag of "probe gpu" that people have no use for.
const (
	self       = "/proc/self/exe"
	NVMLFlag   = "--nvml"
	NVMLReport = "report"
	NVMLEvents = "events"
)

// pendingPeriod is how often the built-in families look while they wait, whatever their period is: they have events to
// wake them, and this is for what sends none, such as the container runtime loading a network config.
var pendingPeriod = map[ProbeType]time.Duration{
	ProbeCNI: 100 * time.Millisecond,
	ProbeGPU: 250 * time.Millisecond,
}

func newChecker(cfg Config, p Probe, csiNode *CSINode) (probe.Checker, error) {
	switch p.Type {
	case ProbeCNI:
		return &probe.CNI{
			ConfDir: p.ConfDir, Plugin: p.Plugin,
			Runtime:   &probe.CRI{Address: strings.TrimPrefix(cfg.Containerd.Address, "unix://")},
			Endpoints: probe.DefaultPluginEndpoints().WithAddress(p.Address),
		}, nil
	case ProbeCSI:
		return &probe.CSI{Drivers: p.Drivers, KubeletDir: p.KubeletDir, Registrations: csiNode}, nil
	case ProbeGPU:
		return &probe.GPU{
			MinDevices: p.MinDevices, DevicePlugin: p.DevicePlugin == nil || *p.DevicePlugin, KubeletDir: p.KubeletDir, IgnoreXIDs: p.IgnoreXIDs,
			SysDir: "/sys", ValidationsDir: "/run/nvidia/validations", Units: systemd.Units{},
			ReadCommand:   []string{self, "probe", "gpu", NVMLFlag + "=" + NVMLReport},
			FollowCommand: []string{self, "probe", "gpu", NVMLFlag + "=" + NVMLEvents},
		}, nil
	case ProbeEFA:
		return &probe.EFA{MinDevices: p.MinDevices, SysDir: "/sys", DevDir: "/dev"}, nil
	case ProbeDRA:
		return &probe.DRA{Drivers: p.Drivers, KubeletDir: p.KubeletDir, Slices: csiNode}, nil
	case ProbeNeuron:
		return &probe.Neuron{
			MinDevices: p.MinDevices, DevicePlugin: p.DevicePlugin == nil || *p.DevicePlugin, KubeletDir: p.KubeletDir, SysDir: "/sys",
		}, nil
	case ProbeExec:
		return &probe.Exec{Command: p.Command, Allowed: cfg.AllowExec || p.AllowExec}, nil
	default:
		return newUserChecker(p)
	}
}

// newUserChecker makes a checker of what a user names: a unit, an address or a path.
func newUserChecker(p Probe) (probe.Checker, error) {
	switch p.Type { // newChecker has made the others
	case ProbeSystemd:
		return &probe.Systemd{Unit: p.Unit, Units: systemd.Units{}}, nil
	case ProbeHTTP:
		return &probe.HTTP{URL: p.URL}, nil
	case ProbeTCP:
		return &probe.TCP{Address: p.Address}, nil
	case ProbeGRPC:
		return &probe.GRPC{Address: p.Address, Service: p.Service}, nil
	case ProbeUnix:
		return &probe.Unix{Path: p.Path}, nil
	case ProbeFile:
		return &probe.File{Path: p.Path}, nil
	default:
		return nil, fmt.Errorf("unknown probe type %q", p.Type)
	}
}
