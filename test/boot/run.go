package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/test/testenv"
)

const (
	runTimeout    = 3 * time.Minute
	eventTimeout  = 10 * time.Second
	commandLimit  = 10 * time.Second
	pollPeriod    = 50 * time.Millisecond
	logBytes      = 8 << 10
	dropInPattern = "*.conf"
	snapshotter   = "overlayfs"
)

// Delays are what a cloud's boot takes beside what really happens here.
type Delays struct {
	// Kubelet is the time from the machine's start to the kubelet's: userData, instance metadata, network interfaces.
	Kubelet time.Duration
	// Config and CNI count from the node's registration: somebody writes the ConfigMap; the CNI plugin's DaemonSet is
	// scheduled, pulled and started, and then writes its configuration.
	Config, CNI time.Duration
}

// Options describe one boot.
type Options struct {
	// Name of the node and of the pod.
	Name string
	// Headstart runs the agent, the startup taint and the gates; without it the node and the pod are plain.
	Headstart bool
	Delays    Delays
	// OnMark is called at each mark, one call at a time; nil for nobody.
	OnMark func(Mark, time.Duration)
}

// Result tells what happened in one boot.
type Result struct {
	// At is the time of each mark since the pod was created.
	At map[Mark]time.Duration
	// PullEvent is the kubelet's message about the workload's image.
	PullEvent string
	// PulledBytes is what the registry sent for it.
	PulledBytes int64
	// AgentTimeline is what "headstart-agent timeline" prints; empty without Headstart.
	AgentTimeline string
}

// Run boots a node, waits until the pod runs on it, and takes the node away again.
func (c *Cluster) Run(ctx context.Context, opts Options) (*Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runTimeout, fmt.Errorf("it took more than %s", runTimeout))
	defer cancel()
	c.registry.Proxy.ResetCounts()
	r := &run{cluster: c, opts: opts, recorder: newRecorder(opts.OnMark)}

	group, watchCtx := errgroup.WithContext(ctx)
	watchCtx, stopWatching := context.WithCancel(watchCtx)
	group.Go(func() error { return r.recorder.watchNode(watchCtx, c.client, opts.Name, opts.Headstart) })
	group.Go(func() error { return r.recorder.watchPod(watchCtx, c.client, opts.Name, opts.Headstart) })
	result, err := r.boot(watchCtx, group)
	logs := r.logs(ctx)
	stopWatching()
	err = errors.Join(err, group.Wait())
	if err != nil {
		err = fmt.Errorf("boot node %q: %w\n%s", opts.Name, err, logs)
	}
	return result, errors.Join(err, r.stop(context.WithoutCancel(ctx)))
}

// run is one boot under way.
type run struct {
	cluster  *Cluster
	opts     Options
	recorder *recorder

	containerd *testenv.Containerd
	agent      *testenv.Program
	agentState string
	node       *testenv.Node
}

func (r *run) boot(ctx context.Context, group *errgroup.Group) (*Result, error) {
	c, mark := r.cluster, r.recorder.mark
	pod := workload(r.opts.Name, c.ImageRef, r.opts.Headstart)
	if _, err := c.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("create the pod: %w", err)
	}
	mark(PodCreated)

	var err error
	if r.containerd, err = testenv.NewContainerd(ctx, testenv.ContainerdConfig{Registry: c.registry}); err != nil {
		return nil, err
	}
	mark(MachineOn)
	kubeletDue := time.After(r.opts.Delays.Kubelet)
	group.Go(func() error { return r.watchImage(ctx) })
	nodeConfig := testenv.NodeConfig{Name: r.opts.Name}
	if r.opts.Headstart {
		nodeConfig.Labels = map[string]string{poolLabel: "fast"}
		if nodeConfig.ConfigDir, err = r.startAgent(ctx); err != nil {
			return nil, err
		}
	}
	if err := await(ctx, kubeletDue); err != nil {
		return nil, err
	}
	mark(KubeletStarted)
	if r.node, err = testenv.NewNode(ctx, c.plane, r.containerd, nodeConfig); err != nil {
		return nil, err
	}
	if err := r.recorder.wait(ctx, NodeRegistered); err != nil {
		return nil, err
	}
	if err := r.play(ctx); err != nil {
		return nil, err
	}
	if err := r.recorder.wait(ctx, r.expected()...); err != nil {
		return nil, err
	}
	return r.result(ctx)
}

// expected are the marks that end a boot.
func (r *run) expected() []Mark {
	marks := []Mark{NodeReady, ImageOnNode, PodScheduled, PodRunning}
	if r.opts.Headstart {
		marks = append(marks, ImagesReady, CNIReady, TaintReleased, GatesLifted)
	}
	return marks
}

// play does what others in a cluster do after a node has registered.
func (r *run) play(ctx context.Context) error {
	configDue, cniDue := time.After(r.opts.Delays.Config), time.After(r.opts.Delays.CNI)
	for range 2 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-configDue:
			object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMap}, Data: map[string]string{"COLOUR": "blue"}}
			if _, err := r.cluster.client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("write the ConfigMap: %w", err)
			}
			r.recorder.mark(ConfigWritten)
		case <-cniDue:
			if err := r.containerd.WriteCNI(); err != nil {
				return err
			}
			r.recorder.mark(CNIWritten)
		}
	}
	return nil
}

// startAgent starts the agent and returns the kubelet's drop-in folder, once the agent has written the startup taint into it:
// on a real node systemd orders the kubelet after the agent.
func (r *run) startAgent(ctx context.Context) (string, error) {
	c := r.cluster
	kubeconfig := c.plane.Kubeconfig("system:node:"+r.opts.Name, "system:nodes")
	dir, err := os.MkdirTemp(c.dir, "agent-")
	if err != nil {
		return "", fmt.Errorf("make the agent's folder: %w", err)
	}
	dropIns := filepath.Join(dir, "kubelet.conf.d")
	if err := os.Mkdir(dropIns, 0o755); err != nil { // as on a node
		return "", fmt.Errorf("make the kubelet's drop-in folder: %w", err)
	}
	config := agentConfig(r.opts.Name, kubeconfig, c.ImageRef, r.containerd.Address(), r.containerd.CNIConfDir())
	r.agent, err = testenv.NewProgram(ctx, testenv.ProgramConfig{
		Path: c.agent, Args: []string{"run", "--config", "{dir}/agent.yaml"},
		Files: map[string]string{"agent.yaml": strings.ReplaceAll(config, "{dir}", dir)},
		Ready: func(context.Context) error {
			found, err := filepath.Glob(filepath.Join(dropIns, dropInPattern))
			if err == nil && len(found) == 0 {
				err = errors.New("no drop-in for the kubelet yet")
			}
			return err
		},
	})
	if err != nil {
		return "", err
	}
	r.recorder.mark(AgentStarted)
	r.agentState = filepath.Join(dir, "state")
	return dropIns, nil
}

// watchImage marks when the workload's image is complete on the node.
func (r *run) watchImage(ctx context.Context) error {
	client, err := r.containerd.Client()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		image, err := client.GetImage(ctx, r.cluster.ImageRef)
		if err != nil {
			continue // not there yet, or the boot is over
		}
		unpacked, err := image.IsUnpacked(ctx, snapshotter)
		if err == nil && unpacked {
			r.recorder.mark(ImageOnNode)
			return nil
		}
	}
}

// result gathers what is to be told of a boot that has come to its end.
func (r *run) result(ctx context.Context) (*Result, error) {
	event, err := r.pullEvent(ctx)
	if err != nil {
		return nil, err
	}
	result := &Result{PullEvent: event, PulledBytes: r.cluster.registry.Proxy.Pulled().Bytes, At: r.recorder.all()}
	if r.agent == nil {
		return result, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	output, err := exec.CommandContext(ctx, r.cluster.agent, "timeline", "--state-dir", r.agentState).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ask the agent for its timeline: %w: %s", err, output)
	}
	result.AgentTimeline = string(output)
	return result, nil
}

// pullEvent returns the kubelet's message about the pod's image; events come a moment after what they tell of.
func (r *run) pullEvent(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, eventTimeout, errors.New("no event about the pod's image"))
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	options := metav1.ListOptions{FieldSelector: "involvedObject.name=" + r.opts.Name + ",reason=Pulled"}
	for {
		events, err := r.cluster.client.CoreV1().Events(namespace).List(ctx, options)
		if err == nil && len(events.Items) > 0 {
			return events.Items[0].Message, nil
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(fmt.Errorf("look for the kubelet's event: %w", context.Cause(ctx)), err)
		case <-tick.C:
		}
	}
}

// logs are the ends of the logs of what Headstart runs, and the state of the pod, for an error.
func (r *run) logs(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
	defer cancel()
	logs := "headstart-controller:\n" + r.cluster.ControllerLog()
	if r.agent != nil {
		logs += "\nheadstart-agent:\n" + r.agent.Log(logBytes)
	}
	pod, err := r.cluster.client.CoreV1().Pods(namespace).Get(ctx, r.opts.Name, metav1.GetOptions{})
	if err == nil {
		logs += fmt.Sprintf("\npod: %s, gates %v, conditions %+v", pod.Status.Phase, pod.Spec.SchedulingGates, pod.Status.Conditions)
	}
	nodes, err := r.cluster.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err == nil {
		lines := []string{""}
		for _, node := range nodes.Items {
			lines = append(lines, fmt.Sprintf("node: %s, taints %v, annotations %v", node.Name, node.Spec.Taints, node.Annotations))
		}
		logs += strings.Join(lines, "\n")
	}
	if policies, err := r.cluster.client.RESTClient().Get().AbsPath("/apis/headstart.dev/v1alpha1/gatepolicies").DoRaw(ctx); err == nil {
		logs += fmt.Sprintf("\npolicies: %s", policies)
	}
	return logs
}

// stop takes the node, the pod and what they needed away.
func (r *run) stop(ctx context.Context) error {
	var errs []error
	if r.agent != nil {
		errs = append(errs, r.agent.Stop())
	}
	if r.node != nil {
		errs = append(errs, r.node.Stop())
	}
	if r.containerd != nil {
		errs = append(errs, r.containerd.Stop())
	}
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	core := r.cluster.client.CoreV1()
	for _, err := range []error{
		core.Pods(namespace).Delete(ctx, r.opts.Name, now),
		core.ConfigMaps(namespace).Delete(ctx, configMap, now),
		core.Nodes().Delete(ctx, r.opts.Name, now),
	} {
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func await(ctx context.Context, due <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-due:
		return nil
	}
}
