package image

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// cLibraries is glibc as far as NVIDIA's library, which the container runtime mounts, and the binary itself need it.
var cLibraries = []string{"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"}

// libraries are the loader and the C library of the toolchain that linked the binary, and their version; none for a
// static one.
func libraries(ctx context.Context, spec Spec, arch string, binary []byte) (files []file, version string, err error) {
	if !spec.CGO {
		return nil, "", nil
	}
	loader, needed, err := linkage(binary)
	if err != nil {
		return nil, "", fmt.Errorf("read linkage of %s for %s: %w", spec.Command, arch, err)
	}
	for _, name := range needed {
		if !slices.Contains(cLibraries, name) && name != path.Base(loader) {
			return nil, "", fmt.Errorf("%s for %s needs %s, which the image has not: add it to cLibraries", spec.Command, arch, name)
		}
	}
	cc, err := compiler(arch)
	if err != nil {
		return nil, "", err
	}
	for _, name := range append(slices.Clone(cLibraries), path.Base(loader)) {
		content, err := library(ctx, cc, name)
		if err != nil {
			return nil, "", err
		}
		if found := glibcVersion.FindSubmatch(content); found != nil {
			version = string(found[1])
		}
		at := path.Join("lib", triplet(arch), name)
		if name == path.Base(loader) {
			at = strings.TrimPrefix(loader, "/")
		}
		files = append(files, file{at, 0o755, content})
	}
	return files, version, nil
}

// glibcVersion is how libc.so.6 names itself: "GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36."
var glibcVersion = regexp.MustCompile(`GNU C Library \((?:[A-Za-z]+ )*([0-9][^)]*)\)`)

// triplet names the folder that Debian's loader looks into.
func triplet(arch string) string { return strings.TrimSuffix(compilers[arch], "-gcc") }

// linkage is a binary's loader and the libraries that it names.
func linkage(binary []byte) (loader string, needed []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return "", nil, err
	}
	interp := f.Section(".interp")
	if interp == nil {
		return "", nil, fmt.Errorf("no loader is named: it was not built with cgo")
	}
	data, err := interp.Data()
	if err != nil {
		return "", nil, err
	}
	needed, err = f.ImportedLibraries()
	return string(bytes.TrimRight(data, "\x00")), needed, err
}

// library reads a library of a compiler's own system.
func library(ctx context.Context, cc, name string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, cc, "-print-file-name="+name).Output()
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	at := strings.TrimSpace(string(out))
	if !filepath.IsAbs(at) {
		return nil, fmt.Errorf("find %s: %s does not know it", name, cc)
	}
	content, err := os.ReadFile(at)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}
