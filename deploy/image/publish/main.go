// Command publish builds the agent's and the controller's images and pushes them, with their SBOMs, or writes them to an
// OCI layout. It prints one line an image: its reference by digest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"headstart.dev/deploy/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("publish", flag.ContinueOnError)
	source := flags.String("source", ".", "root of the Go module")
	registry := flags.String("registry", "", "push to `REGISTRY/headstart-{agent,controller}:VERSION`")
	dir := flags.String("layout", "", "write OCI layouts below this `folder` instead")
	version := flags.String("version", "v0.1.0", "version and tag of the images")
	commit := flags.String("revision", "", "commit of the sources (default: what git says)")
	platforms := flags.String("platforms", "amd64,arm64", "architectures")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (*registry == "") == (*dir == "") {
		return errors.New("give -registry or -layout")
	}
	options := image.Options{Source: *source, Platforms: strings.Split(*platforms, ","), Version: *version, Revision: *commit}
	if options.Revision == "" {
		options.Revision = revision(ctx, *source)
	}
	for _, spec := range []image.Spec{image.Agent, image.Controller} {
		built, err := image.Build(ctx, spec, options)
		if err != nil {
			return err
		}
		target := *registry + "/" + spec.Command
		if *dir != "" {
			target = filepath.Join(*dir, spec.Command)
			err = write(target, built)
		} else {
			err = push(ctx, target, *version, built)
		}
		if err != nil {
			return err
		}
		digest, err := built.Index.Digest()
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "%s@%s\n", target, digest)
	}
	return nil
}

// revision is the commit of the sources, "" outside of a git repository.
func revision(ctx context.Context, source string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", source}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return ""
	}
	if changed, err := git("status", "--porcelain"); err != nil || changed != "" {
		return commit + "-dirty"
	}
	return commit
}

func push(ctx context.Context, repository, version string, built *image.Built) error {
	tag, err := name.NewTag(repository + ":" + version)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if err := remote.WriteIndex(tag, built.Index, options...); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	for _, sbom := range built.SBOMs {
		digest, err := sbom.Digest()
		if err != nil {
			return fmt.Errorf("push SBOM: %w", err)
		}
		if err := remote.Write(tag.Context().Digest(digest.String()), sbom, options...); err != nil {
			return fmt.Errorf("push SBOM %s: %w", digest, err)
		}
	}
	return nil
}

func write(dir string, built *image.Built) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := path.AppendIndex(built.Index); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	for _, sbom := range built.SBOMs {
		if err := path.AppendImage(sbom); err != nil {
			return fmt.Errorf("write SBOM: %w", err)
		}
	}
	return nil
}
