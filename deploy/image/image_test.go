package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/image"
)

// build packs the smallest of our commands, for the machine's own architecture: what is tested is the packing.
func build(t *testing.T) *image.Built {
	t.Helper()
	return buildSpec(t, image.Spec{Command: "kubectl-headstart", User: "65532:65532", Args: []string{"--help"}}, runtime.GOARCH)
}

// architectures are this machine's own, and in make test-long all that we release: compiling for another one takes more than
// five minutes where nothing is cached, and no file of ours is for one alone.
func architectures() []string {
	if os.Getenv("HEADSTART_LONG") != "" {
		return []string{"amd64", "arm64"}
	}
	return []string{runtime.GOARCH}
}

func buildSpec(t *testing.T, spec image.Spec, platforms ...string) *image.Built {
	t.Helper()
	built, err := image.Build(t.Context(), spec, image.Options{Source: "../..", Platforms: platforms, Version: "v1.2.3", Revision: "4711abc"})
	require.NoError(t, err)
	return built
}

func only(t *testing.T, index v1.ImageIndex) v1.Image {
	t.Helper()
	images, err := partial.FindImages(index, func(v1.Descriptor) bool { return true })
	require.NoError(t, err)
	require.Len(t, images, 1)
	return images[0]
}

func TestBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles a command, twice")
	}
	built := build(t)
	img := only(t, built.Index)

	t.Run("one static binary that runs as nobody", func(t *testing.T) {
		config, err := img.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, "65532:65532", config.Config.User)
		require.Equal(t, []string{"/usr/local/bin/kubectl-headstart"}, config.Config.Entrypoint)
		require.True(t, config.Created.IsZero(), "no clock")
		layers, err := img.Layers()
		require.NoError(t, err)
		require.Len(t, layers, 1)
		require.Equal(t, []string{
			"etc/", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt",
			"usr/", "usr/local/", "usr/local/bin/", "usr/local/bin/kubectl-headstart",
		}, slices.Sorted(maps.Keys(contents(t, layers[0]))))
		require.True(t, x509.NewCertPool().AppendCertsFromPEM(contents(t, layers[0])["etc/ssl/certs/ca-certificates.crt"]))
	})
	t.Run("the program knows its release", func(t *testing.T) {
		layers, err := img.Layers()
		require.NoError(t, err)
		program := filepath.Join(t.TempDir(), "program")
		require.NoError(t, os.WriteFile(program, contents(t, layers[0])["usr/local/bin/kubectl-headstart"], 0o700))
		out, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "kubectl headstart v1.2.3, commit 4711abc, go1.")
		config, err := img.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, "4711abc", config.Config.Labels["org.opencontainers.image.revision"])
	})
	t.Run("an SBOM refers to it", func(t *testing.T) {
		require.Len(t, built.SBOMs, 1)
		manifest, err := built.SBOMs[0].Manifest()
		require.NoError(t, err)
		digest, err := img.Digest()
		require.NoError(t, err)
		require.NotNil(t, manifest.Subject)
		require.Equal(t, digest, manifest.Subject.Digest)
		modules := sbomPackages(t, built.SBOMs[0])
		require.Contains(t, modules, "github.com/spf13/cobra")
		require.Contains(t, modules, "stdlib")
		require.Contains(t, modules, "golang.org/x/crypto/x509roots/fallback")
	})
	t.Run("two builds have one digest", func(t *testing.T) {
		again := build(t)
		want, err := built.Index.Digest()
		require.NoError(t, err)
		got, err := again.Index.Digest()
		require.NoError(t, err)
		require.Equal(t, want, got)
		wantSBOM, err := built.SBOMs[0].Digest()
		require.NoError(t, err)
		gotSBOM, err := again.SBOMs[0].Digest()
		require.NoError(t, err)
		require.Equal(t, wantSBOM, gotSBOM)
	})
}

// The agent is linked with the C library, for NVIDIA's: everything that it needs is in the image, for every architecture,
// and its binary runs on AL2023 as well, whose glibc is older than the one it was linked with.
func TestAgentImage(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the agent, twice")
	}
	built := buildSpec(t, image.Agent, architectures()...)
	images, err := partial.FindImages(built.Index, func(v1.Descriptor) bool { return true })
	require.NoError(t, err)
	require.Len(t, images, len(architectures()))
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for i, img := range images {
		config, err := img.ConfigFile()
		require.NoError(t, err)
		require.Contains(t, machines, config.Architecture)
		layers, err := img.Layers()
		require.NoError(t, err)
		files := contents(t, layers[0])
		binary, err := elf.NewFile(bytes.NewReader(files["usr/local/bin/headstart-agent"]))
		require.NoError(t, err)
		require.Equal(t, machines[config.Architecture], binary.Machine)
		loader, err := binary.Section(".interp").Data()
		require.NoError(t, err)
		require.Contains(t, files, strings.Trim(string(loader), "/\x00"))
		requireLibraries(t, binary, files)
		require.Contains(t, sbomPackages(t, built.SBOMs[i]), "glibc")
	}
	again := buildSpec(t, image.Agent, architectures()...)
	want, err := built.Index.Digest()
	require.NoError(t, err)
	got, err := again.Index.Digest()
	require.NoError(t, err)
	require.Equal(t, want, got, "two builds have one digest")
}

// newestGlibc is AL2023's, as minor version of 2.
const newestGlibc = 34

func requireLibraries(t *testing.T, binary *elf.File, files map[string][]byte) {
	t.Helper()
	needed, err := binary.ImportedLibraries()
	require.NoError(t, err)
	require.NotEmpty(t, needed)
	for _, library := range needed {
		found := slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(name string) bool { return path.Base(name) == library })
		require.True(t, found, "%s is in the image", library)
	}
	symbols, err := binary.ImportedSymbols()
	require.NoError(t, err)
	for _, symbol := range symbols {
		var minor int
		if n, _ := fmt.Sscanf(symbol.Version, "GLIBC_2.%d", &minor); n == 1 {
			require.LessOrEqual(t, minor, newestGlibc, "%s needs %s", symbol.Name, symbol.Version)
		}
	}
}

func contents(t *testing.T, layer v1.Layer) map[string][]byte {
	t.Helper()
	in, err := layer.Uncompressed()
	require.NoError(t, err)
	defer func() { _ = in.Close() }()
	out := map[string][]byte{}
	r := tar.NewReader(in)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		require.Zero(t, header.ModTime.Unix(), "no clock")
		require.Zero(t, header.Mode&0o022, "nobody but root writes %s", header.Name)
		out[header.Name], err = io.ReadAll(r)
		require.NoError(t, err)
	}
}

func sbomPackages(t *testing.T, sbom v1.Image) []string {
	t.Helper()
	layers, err := sbom.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	in, err := layers[0].Uncompressed()
	require.NoError(t, err)
	defer func() { _ = in.Close() }()
	var doc struct {
		SPDXVersion string
		Packages    []struct{ Name string }
	}
	require.NoError(t, json.NewDecoder(in).Decode(&doc))
	require.Equal(t, "SPDX-2.3", doc.SPDXVersion)
	var out []string
	for _, p := range doc.Packages {
		out = append(out, p.Name)
	}
	return out
}
