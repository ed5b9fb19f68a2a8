package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec is one of our images.
type Spec struct {
	// Command is the folder below cmd, and the binary's name in /usr/local/bin.
	Command string
	// User is who it runs as: uid:gid.
	User string
	// Args follow the binary when a container is given none.
	Args []string
}

// The images that we publish.
var (
	// Agent runs as root: containerd's socket, the kubelet's and the CSI drivers' belong to root.
	Agent = Spec{Command: "headstart-agent", User: "0:0", Args: []string{"run"}}
	// Controller runs as nobody in particular.
	Controller = Spec{Command: "headstart-controller", User: "65532:65532"}
)

// Options say what to build.
type Options struct {
	// Source is the root of the Go module.
	Source string
	// Platforms are GOARCH values; linux is understood.
	Platforms []string
	// Version is the image's org.opencontainers.image.version.
	Version string
}

// Built is a multi-arch image, and for each of its images an SBOM in SPDX JSON that refers to it.
type Built struct {
	Index v1.ImageIndex
	SBOMs []v1.Image
}

// Build compiles and packs. It needs the go command and, for modules that it has not seen, its proxy.
func Build(ctx context.Context, spec Spec, options Options) (*Built, error) {
	built := &Built{Index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex)}
	for _, arch := range options.Platforms {
		binary, err := compile(ctx, spec, options, arch)
		if err != nil {
			return nil, err
		}
		img, err := pack(spec, options, arch, binary)
		if err != nil {
			return nil, fmt.Errorf("pack %s for %s: %w", spec.Command, arch, err)
		}
		built.Index = mutate.AppendManifests(built.Index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
		sbom, err := describe(spec, options, img, binary)
		if err != nil {
			return nil, fmt.Errorf("describe %s for %s: %w", spec.Command, arch, err)
		}
		built.SBOMs = append(built.SBOMs, sbom)
	}
	return built, nil
}

// compile returns a static binary that depends on the sources, the Go version and the version alone.
func compile(ctx context.Context, spec Spec, options Options, arch string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "headstart-image-")
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", spec.Command, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, spec.Command)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/"+spec.Command)
	cmd.Dir = options.Source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s for %s: %w: %s", spec.Command, arch, err, strings.TrimSpace(string(text)))
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", spec.Command, err)
	}
	return binary, nil
}

func pack(spec Spec, options Options, arch string, binary []byte) (v1.Image, error) {
	at := "usr/local/bin/" + spec.Command
	layerTar, err := tarOf(at, binary)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{CreatedBy: "headstart.dev/deploy/image"}})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, configFile(img, spec, options, arch, "/"+at))
}

// configFile has no time of creation: the zero time is the same on every day.
func configFile(img v1.Image, spec Spec, options Options, arch, entrypoint string) *v1.ConfigFile {
	config := &v1.ConfigFile{Architecture: arch, OS: "linux", Config: v1.Config{
		Entrypoint: []string{entrypoint},
		Cmd:        spec.Args,
		User:       spec.User,
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/bin"},
		Labels: map[string]string{
			"org.opencontainers.image.title":   spec.Command,
			"org.opencontainers.image.source":  "https://headstart.dev",
			"org.opencontainers.image.version": options.Version,
		},
	}}
	if old, err := img.ConfigFile(); err == nil {
		config.RootFS, config.History = old.RootFS, old.History
	}
	return config
}

// tarOf holds the file and the folders above it, all root's and of 1970.
func tarOf(name string, content []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, dir := range parents(name) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content)), Format: tar.FormatPAX}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// parents are the folders above name, uppermost first.
func parents(name string) []string {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return append(parents(dir), dir)
}
