package image

import (
	"bytes"
	"context"
	"fmt"
	"io"

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
	// CGO builds with cgo, and puts the C library that the binary then needs beside it.
	CGO bool
}

// The images that we publish.
var (
	// Agent runs as root: containerd's socket, the kubelet's and the CSI drivers' belong to root.
	// Only with cgo can it load NVIDIA's library.
	Agent = Spec{Command: "headstart-agent", User: "0:0", Args: []string{"run"}, CGO: true}
	// Controller runs as nobody in particular.
	Controller = Spec{Command: "headstart-controller", User: "65532:65532"}
)

// Options say what to build.
type Options struct {
	// Source is the root of the Go module.
	Source string
	// Platforms are GOARCH values; linux is understood.
	Platforms []string
	// Version is the image's org.opencontainers.image.version, and what the program in it says of itself.
	Version string
	// Revision is the commit of the sources, in the same way; "" where it is not known.
	Revision string
}

// Built is a multi-arch image, and for each of its images an SBOM in SPDX JSON that refers to it.
type Built struct {
	Index v1.ImageIndex
	SBOMs []v1.Image
}

// Build compiles and packs. It needs the go command and, for modules that it has not seen, its proxy; for a Spec with CGO
// also a C compiler for each architecture (Debian: gcc, gcc-aarch64-linux-gnu, gcc-x86-64-linux-gnu).
func Build(ctx context.Context, spec Spec, options Options) (*Built, error) {
	built := &Built{Index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex)}
	for _, arch := range options.Platforms {
		binary, err := compile(ctx, spec, options, arch)
		if err != nil {
			return nil, err
		}
		libc, version, err := libraries(ctx, spec, arch, binary)
		if err != nil {
			return nil, err
		}
		img, err := pack(spec, options, arch, append(libc, file{binaryPath(spec), 0o755, binary}))
		if err != nil {
			return nil, fmt.Errorf("pack %s for %s: %w", spec.Command, arch, err)
		}
		built.Index = mutate.AppendManifests(built.Index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
		sbom, err := describe(spec, options, img, binary, version)
		if err != nil {
			return nil, fmt.Errorf("describe %s for %s: %w", spec.Command, arch, err)
		}
		built.SBOMs = append(built.SBOMs, sbom)
	}
	return built, nil
}

// binaryPath is where the command lies in its image.
func binaryPath(spec Spec) string { return "usr/local/bin/" + spec.Command }

func pack(spec Spec, options Options, arch string, files []file) (v1.Image, error) {
	roots, err := rootCertificates()
	if err != nil {
		return nil, err
	}
	layerTar, err := tarOf(append(files, roots))
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
	return mutate.ConfigFile(img, configFile(img, spec, options, arch))
}

// configFile has no time of creation: the zero time is the same on every day.
func configFile(img v1.Image, spec Spec, options Options, arch string) *v1.ConfigFile {
	config := &v1.ConfigFile{Architecture: arch, OS: "linux", Config: v1.Config{
		Entrypoint: []string{"/" + binaryPath(spec)},
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
	if options.Revision != "" {
		config.Config.Labels["org.opencontainers.image.revision"] = options.Revision
	}
	if spec.CGO {
		// The second is where NVIDIA's container runtime mounts its libraries in an image that is no distribution's.
		config.Config.Env = append(config.Config.Env, "LD_LIBRARY_PATH=/lib/"+triplet(arch)+":/usr/lib64:/usr/lib/"+triplet(arch))
	}
	if old, err := img.ConfigFile(); err == nil {
		config.RootFS, config.History = old.RootFS, old.History
	}
	return config
}
