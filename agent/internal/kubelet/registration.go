package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// DropIn is the name of the file that WriteRegistration puts into the kubelet's config folder. The kubelet reads *.conf
// in alphabetical order; 90 comes after those of EKS's nodeadm (40) and before an administrator's 99.
const DropIn = "90-headstart.conf"

// ArgsVariable is what the args file sets.
const ArgsVariable = "HEADSTART_KUBELET_ARGS"

// Registration is what a kubelet registers its Node with.
type Registration struct {
	Taints []corev1.Taint
	Labels map[string]string
	// ConfigDir is the kubelet's --config-dir, ArgsFile an environment file of its unit.
	ConfigDir, ArgsFile string
}

// WriteRegistration writes the files that a kubelet reads when it starts. It writes only what is asked for, and nothing
// where the file is right already. The kubelet takes the last registerWithTaints whole, so the taints of the files
// before ours (a NodePool's startup taints, say) are joined with ours.
func WriteRegistration(r Registration) error {
	if len(r.Taints) > 0 {
		taints, err := r.joinTaints()
		if err != nil {
			return err
		}
		raw, err := yaml.Marshal(map[string]any{
			"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "registerWithTaints": taints,
		})
		if err != nil {
			return fmt.Errorf("encode kubelet config: %w", err)
		}
		if err := write(filepath.Join(r.ConfigDir, DropIn), raw); err != nil {
			return fmt.Errorf("write the kubelet's startup taints: %w", err)
		}
	}
	if len(r.Labels) > 0 {
		pairs := make([]string, 0, len(r.Labels))
		for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
			pairs = append(pairs, key+"="+r.Labels[key])
		}
		line := ArgsVariable + "=--node-labels=" + strings.Join(pairs, ",") + "\n"
		if err := write(r.ArgsFile, []byte(line)); err != nil {
			return fmt.Errorf("write the kubelet's labels: %w", err)
		}
	}
	return nil
}

// joinTaints puts our taints behind those of the drop-ins before ours; ours win where key and effect are the same.
func (r Registration) joinTaints() ([]corev1.Taint, error) {
	files, err := filepath.Glob(filepath.Join(r.ConfigDir, "*.conf"))
	if err != nil {
		return nil, fmt.Errorf("list the kubelet's config: %w", err)
	}
	slices.Sort(files)
	base := strings.TrimSuffix(strings.TrimSuffix(r.ConfigDir, "/"), ".d")
	var earlier []corev1.Taint
	for _, file := range append([]string{base}, files...) {
		if filepath.Base(file) == DropIn {
			break
		}
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || isDir(file) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the kubelet's config: %w", err)
		}
		var config struct {
			RegisterWithTaints *[]corev1.Taint `json:"registerWithTaints"`
		}
		if err := yaml.Unmarshal(raw, &config); err != nil {
			return nil, fmt.Errorf("read the kubelet's config %s: %w", file, err)
		}
		if config.RegisterWithTaints != nil {
			earlier = *config.RegisterWithTaints
		}
	}
	joined := slices.DeleteFunc(earlier, func(t corev1.Taint) bool {
		return slices.ContainsFunc(r.Taints, func(ours corev1.Taint) bool { return ours.MatchTaint(&t) })
	})
	return append(joined, r.Taints...), nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// write replaces a file by rename, unless it holds that already.
func write(path string, content []byte) error {
	if have, err := os.ReadFile(path); err == nil && string(have) == string(content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp := path + ".headstart"
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
