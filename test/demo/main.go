// Command demo boots one node twice on real components, without Headstart and with it, and shows both boots side by
// side. "make demo" runs it. It needs root and installs or builds everything else that it needs; Ctrl-C takes all of it
// away again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"headstart.dev/test/boot"
	"headstart.dev/test/testenv/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything that it started is gone")
		os.Exit(130)
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	delays    boot.Delays
	bandwidth int64
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.DurationVar(&o.delays.Kubelet, "kubelet-after", 3*time.Second, "played: from the machine's start to the kubelet's")
	flags.DurationVar(&o.delays.Config, "config-after", time.Second, "played: from the node's registration to the ConfigMap")
	flags.DurationVar(&o.delays.CNI, "cni-after", 4*time.Second, "played: from the node's registration to the CNI plugin's configuration")
	flags.Int64Var(&o.bandwidth, "registry-mib-per-second", 0, "limit of the registry; 0 is as fast as this machine")
	return o, flags.Parse(args)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parse(args, out)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("containers and kubelets need root; run: sudo make demo")
	}
	started := time.Now()
	fmt.Fprintln(out, title("Getting ready (the first time builds Kubernetes and containerd from source: about 15 minutes on 2 cores)"))
	cluster, err := boot.NewCluster(ctx, boot.Config{
		Image: images.WebApp(), RegistryBytesPerSecond: opts.bandwidth << 20, Progress: stamped(out, started),
	})
	if err != nil {
		return err
	}
	err = show(ctx, out, cluster, opts)
	fmt.Fprintln(out, "\ncleaning up")
	return errors.Join(err, cluster.Stop())
}

// show boots both ways and compares.
func show(ctx context.Context, out io.Writer, cluster *boot.Cluster, opts options) error {
	var results [2]*boot.Result
	for i, headstart := range []bool{false, true} {
		name, heading := "plain", "A node without Headstart"
		if headstart {
			name, heading = "headstart", "The same node with Headstart"
		}
		fmt.Fprintf(out, "\n%s\n", title(heading))
		result, err := bootOnce(ctx, out, cluster, boot.Options{Name: name, Headstart: headstart, Delays: opts.delays})
		if err != nil {
			return err
		}
		results[i] = result
	}
	plain, headstart := results[0], results[1]
	fmt.Fprintf(out, "\n%s\n\n%s", title("headstart-agent timeline"), headstart.AgentTimeline)
	fmt.Fprintf(out, "\n%s\n\n", title("Side by side, seconds since the pod was created"))
	compare(out, plain, headstart)
	fmt.Fprintf(out, "\nplayed, the same in both: kubelet after %s; ConfigMap %s and CNI configuration %s after registration\n",
		opts.delays.Kubelet, opts.delays.Config, opts.delays.CNI)
	if err := check(plain, headstart); err != nil {
		return err
	}
	return showSteering(ctx, out, cluster)
}

// check fails when the demo has not shown what it promises.
func check(plain, headstart *boot.Result) error {
	if !strings.Contains(headstart.PullEvent, "already present on machine") {
		return fmt.Errorf("the kubelet pulled the image all the same: %s", headstart.PullEvent)
	}
	kubelet, agent := pullTime(plain, boot.PodScheduled), pullTime(headstart, boot.AgentStarted)
	if agent > kubelet {
		return fmt.Errorf("the agent took %.1f s to bring the image, the kubelet %.1f s: it shall never be slower", agent.Seconds(), kubelet.Seconds())
	}
	return nil
}

// pullTime is how long the image was on its way: to the moment at which it was on the node, unpacked.
func pullTime(result *boot.Result, began boot.Mark) time.Duration {
	return result.At[boot.ImageOnNode] - result.At[began]
}

// bootOnce runs one boot and shows marks and bytes as they come.
func bootOnce(ctx context.Context, out io.Writer, cluster *boot.Cluster, opts boot.Options) (*boot.Result, error) {
	lines := make(chan string, 64)
	opts.OnMark = func(mark boot.Mark, at time.Duration) {
		lines <- fmt.Sprintf("%6.1f s  %s", at.Seconds(), mark)
	}
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		printLines(out, cluster, lines)
	}()
	result, err := cluster.Run(ctx, opts)
	close(lines)
	<-printed
	if err == nil {
		fmt.Fprintf(out, "          kubelet: %s\n", result.PullEvent)
	}
	return result, err
}

// progressPeriod is how often a running pull is shown.
const progressPeriod = 500 * time.Millisecond

// printLines prints lines until there are no more, and between them how much the registry has sent.
func printLines(out io.Writer, cluster *boot.Cluster, lines <-chan string) {
	tick := time.NewTicker(progressPeriod)
	defer tick.Stop()
	var shown int64
	for {
		select {
		case line, open := <-lines:
			if !open {
				return
			}
			fmt.Fprintln(out, line)
		case <-tick.C:
			sent := cluster.Registry().Proxy.Pulled().Bytes
			if sent != shown && shown < cluster.ImageBytes {
				shown = sent
				fmt.Fprintf(out, "          image: %d of %d MiB sent\n", min(sent, cluster.ImageBytes)>>20, cluster.ImageBytes>>20)
			}
		}
	}
}
