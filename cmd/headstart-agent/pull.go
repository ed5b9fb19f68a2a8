package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"headstart.dev/cmd/internal/cli"
	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/prepull/credentials"
)

// pullAttempts is when `pull` gives an image up that nothing comes of, unless --timeout says how long to go on: a person
// who waits wants to see the error within half a minute.
const pullAttempts = 5

// pullFlags are the flags of `headstart-agent pull`.
type pullFlags struct {
	address, namespace, snapshotter string
	pin                             bool
	timeout                         time.Duration
	output                          string
	providerConfig, providerBinDir  string
	dockerConfigs                   []string
}

func newPullCommand() *cobra.Command {
	var f pullFlags
	cmd := &cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Pulls images into containerd as the CRI would see them",
		Long: "Pulls images into containerd so that the CRI and the kubelet see them as their own: a pod that names one starts\n" +
			"without a pull. Progress bars without colours on a terminal, one line an image otherwise. It may run before, beside and after the\n" +
			"kubelet; what an earlier run has fetched is used.\n\n" +
			"Exit codes: 0 all images are there, 1 some failed, 2 the command line is wrong.",
		Example: "  headstart-agent pull nginx:1.29 registry.example/app@sha256:4bcf...\n" +
			"  headstart-agent pull --pin --timeout 10m registry.example/app:v1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("pull: name at least one image, such as nginx:1.29; see 'headstart-agent pull --help'")
			}
			for _, arg := range args {
				if _, err := prepull.Normalize(arg); err != nil {
					return cli.Usage(err)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "json"}, f.output) {
				return cli.Usagef("--output %q: want text or json", f.output)
			}
			if f.timeout < 0 {
				return cli.Usagef("--timeout %s: want a duration above zero, such as 10m", f.timeout)
			}
			return pullImages(cmd.Context(), f, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", containerd.DefaultAddress, "containerd's socket")
	flags.StringVar(&f.namespace, "namespace", containerd.DefaultNamespace, "containerd namespace; the CRI looks into k8s.io only")
	flags.StringVar(&f.snapshotter, "snapshotter", containerd.AutoSnapshotter, "snapshotter to unpack into; auto asks the CRI which one it uses")
	flags.BoolVar(&f.pin, "pin", false, "keep the images from the kubelet's image garbage collection for a week; a later pull with --pin renews it")
	flags.DurationVar(&f.timeout, "timeout", 0, "try again for so long what can heal (default: give an image up after 5 failures in a row)")
	flags.StringVar(&f.output, "output", "text", "text or json")
	flags.StringVar(&f.providerConfig, "credential-provider-config", "", "the kubelet's credential provider config (default: the one of EKS, where it exists)")
	flags.StringVar(&f.providerBinDir, "credential-provider-bin-dir", "", "folder with the credential providers' programs")
	flags.StringSliceVar(&f.dockerConfigs, "docker-config", nil, "docker config.json files with credentials (default: /var/lib/kubelet/config.json and /root/.docker/config.json, where they exist)")
	return cmd
}

// pullImages runs one pull. Results go to out, all else to errOut.
func pullImages(ctx context.Context, f pullFlags, refs []string, out, errOut io.Writer) error {
	log := logr.FromSlogHandler(slog.NewJSONHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	keyring, err := credentials.New(credentials.Config{
		ProviderConfig: f.providerConfig, ProviderBinDir: f.providerBinDir, DockerConfigs: f.dockerConfigs, Log: log,
	})
	if err != nil {
		return cli.Usage(err)
	}
	store, err := containerd.New(containerd.Config{
		Address: f.address, Namespace: f.namespace, Snapshotter: f.snapshotter, Credentials: keyring.Lookup, PinOwner: containerd.OwnerCommand, Log: log,
	})
	if err != nil {
		return cli.Usage(err)
	}
	defer func() { _ = store.Close() }()

	view := newPullView(f.output, out, errOut)
	cfg := prepull.Config{Store: store, Observer: view.observe, Log: logr.Discard(), MaxAttempts: pullAttempts}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("not there within %s", f.timeout))
		defer cancel()
		cfg.MaxAttempts = 0
	}
	for i, ref := range refs {
		// The first named is the most wanted.
		cfg.Images = append(cfg.Images, prepull.Image{Ref: ref, Priority: int32(len(refs) - i), Pin: f.pin})
	}
	puller, err := prepull.New(cfg)
	if err != nil {
		return err
	}
	runCtx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = puller.Run(runCtx) })
	statuses, waitErr := puller.Wait(ctx)
	stop()
	wg.Wait()
	if waitErr != nil {
		statuses = puller.Status() // a pull that was interrupted has said only now what it waited for
	}
	view.finish(statuses, discovery(store))

	failed := 0
	for _, s := range statuses {
		if s.State != prepull.StateWarm && s.State != prepull.StateLazy {
			failed++
		}
	}
	switch {
	case waitErr != nil:
		return fmt.Errorf("%d of %d images: %w", failed, len(statuses), context.Cause(ctx))
	case failed > 0:
		return fmt.Errorf("%d of %d images failed", failed, len(statuses))
	}
	return nil
}

// discovery returns what the store found at containerd, nil when it never got there.
func discovery(store *containerd.Store) *containerd.Discovery {
	found, ok := store.Discovered()
	if !ok {
		return nil
	}
	return &found
}

// pullView shows a pull.
type pullView interface {
	observe(status prepull.ImageStatus)
	finish(statuses []prepull.ImageStatus, found *containerd.Discovery)
}

func newPullView(output string, out, errOut io.Writer) pullView {
	if output == "json" {
		return &jsonView{out: out}
	}
	// A dumb terminal cannot move its cursor.
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		return newBarView(out)
	}
	return &lineView{out: out, errOut: errOut, told: map[string]string{}}
}

// jsonView prints one document at the end.
type jsonView struct{ out io.Writer }

func (v *jsonView) observe(prepull.ImageStatus) {}

func (v *jsonView) finish(statuses []prepull.ImageStatus, found *containerd.Discovery) {
	encoder := json.NewEncoder(v.out)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(struct {
		Containerd *containerd.Discovery `json:"containerd,omitempty"`
		Images     []prepull.ImageStatus `json:"images"`
	}{found, statuses})
}
