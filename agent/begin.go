package agent

import (
	"context"
	"os"
	"strings"
	"time"

	"headstart.dev/agent/internal/kubelet"
	"headstart.dev/agent/internal/systemd"
	"headstart.dev/agent/timeline"
)

// bootWindow is how long before the agent a boot may have begun. What lies further back, as on a node that the agent was
// installed on later, is no part of a boot that the agent has seen.
const bootWindow = 15 * time.Minute

// begin records what happened before the agent, and the agent's own start.
func (a *Agent) begin(ctx context.Context) error {
	recorder := a.state.recorder
	started, err := timeline.ProcessStart(os.Getpid())
	if err != nil {
		return err
	}
	recorder.Record(timeline.Phase{Name: timeline.Agent, Start: started, End: started})
	if first, ok := recorder.Timeline().Find(timeline.Agent, ""); ok {
		if first.Start.Before(started) {
			a.state.resumed = first.Start
		}
		started = first.Start
	}
	a.state.horizon = started.Add(-bootWindow)
	a.recordBoot(ctx)
	if at, err := kubelet.SocketOwnerStart(strings.TrimPrefix(a.config.Containerd.Address, "unix://")); err == nil {
		a.state.mark(timeline.Containerd, at)
	}
	if at, err := kubelet.ProcessStart(); err == nil {
		a.state.mark(timeline.Kubelet, at)
	}
	return recorder.Save()
}

// recordBoot asks systemd for the phases before it started us. Without systemd the kernel's start is all there is.
func (a *Agent) recordBoot(ctx context.Context) {
	kernel, err := timeline.KernelStart()
	if err != nil || kernel.Before(a.state.horizon) {
		return
	}
	boot, err := systemd.BootTimes(ctx)
	if err != nil {
		a.state.recorder.Record(timeline.Phase{Name: timeline.Kernel, Start: kernel, End: kernel})
		return
	}
	a.state.recorder.Record(timeline.Phase{Name: timeline.Kernel, Start: kernel, End: boot.Userspace})
	a.state.recorder.Record(timeline.Phase{Name: timeline.Userspace, Start: boot.Userspace, End: boot.Finish})
}

// register writes what the kubelet is to register with. The kubelet reads it when it starts: see Register.
func (a *Agent) register() error {
	return kubelet.WriteRegistration(kubelet.Registration{
		Taints: a.config.Register.Taints, Labels: a.config.Register.Labels,
		ConfigDir: a.config.Register.KubeletConfigDir, ArgsFile: a.config.Register.KubeletArgsFile,
	})
}
