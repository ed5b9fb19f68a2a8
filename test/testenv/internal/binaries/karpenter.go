package binaries

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// EnsureKarpenter returns the path of Karpenter with its KWOK provider, built once, and the folders of its CRDs.
func EnsureKarpenter(ctx context.Context, progress io.Writer) (path string, crdDirs []string, err error) {
	dir, err := KarpenterModule.Ensure(ctx, progress)
	if err != nil {
		return "", nil, err
	}
	source, err := KarpenterModule.source()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/karpenter")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), KarpenterModule.environ()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", nil, fmt.Errorf("find the source of Karpenter: %w: %s", err, stderr.String())
	}
	karpenter := strings.TrimSpace(string(out))
	return filepath.Join(dir, Karpenter), []string{
		filepath.Join(karpenter, "kwok", "charts", "crds"), filepath.Join(karpenter, "kwok", "apis", "crds"),
	}, nil
}
