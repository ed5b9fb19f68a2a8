package testenv

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const cgroupRoot = "/sys/fs/cgroup"

// writeConfig writes the kubelet's configuration, with the caller's fields over the testbed's.
func (n *Node) writeConfig(ca []byte) error {
	for _, dir := range []string{"kubelet", "pki", "logs", "plugins", "manifests"} {
		if _, err := n.work.Mkdir(dir); err != nil {
			return err
		}
	}
	caPath, err := n.work.Write(ca, "ca.crt")
	if err != nil {
		return err
	}
	config := n.baseConfig(caPath)
	extra := map[string]any{}
	if err := yaml.Unmarshal([]byte(n.cfg.KubeletConfig), &extra); err != nil {
		return fmt.Errorf("parse NodeConfig.KubeletConfig: %w", err)
	}
	maps.Copy(config, extra)
	content, err := yaml.Marshal(config)
	if err != nil {
		return fmt.Errorf("write the kubelet's configuration: %w", err)
	}
	_, err = n.work.Write(content, "kubelet.yaml")
	return err
}

// baseConfig is the KubeletConfiguration of every node. What differs from the kubelet's defaults keeps the kubelet inside
// its workspace, lets it run on a machine with cgroup v1 and swap, or keeps a full disk or idle hours from evicting pods.
func (n *Node) baseConfig(caPath string) map[string]any {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": n.ip, "port": n.port, "healthzBindAddress": "127.0.0.1", "healthzPort": n.healthPort,
		"authentication": map[string]any{
			"x509": map[string]any{"clientCAFile": caPath}, "anonymous": map[string]any{"enabled": false},
			"webhook": map[string]any{"enabled": false},
		},
		"authorization":               map[string]any{"mode": "AlwaysAllow"},
		"containerRuntimeEndpoint":    "unix://" + n.ctd.Address(),
		"cgroupDriver":                "cgroupfs",
		"cgroupRoot":                  "/" + n.cgroup(),
		"failCgroupV1":                false,
		"failSwapOn":                  false,
		"oomScoreAdj":                 0,
		"makeIPTablesUtilChains":      false,
		"evictionHard":                map[string]string{"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
		"imageGCHighThresholdPercent": 100,
		"podLogsDir":                  n.work.Path("logs"),
		"volumePluginDir":             n.work.Path("plugins"),
		"staticPodPath":               n.work.Path("manifests"),
		"resolvConf":                  "",
	}
	if len(n.cfg.Taints) > 0 {
		config["registerWithTaints"] = slices.Clone[[]corev1.Taint](n.cfg.Taints)
	}
	return config
}

// labelFlag is the value of --node-labels, in a fixed order.
func labelFlag(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

// makeCgroup makes the top cgroup of a node in every hierarchy: the kubelet wants it to be there. A cpuset without CPUs
// admits no process, so it gets those of the root.
func makeCgroup(name string) error {
	hierarchies := []string{cgroupRoot}
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err != nil {
		found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
		if err != nil || len(found) == 0 {
			return errors.Join(fmt.Errorf("make cgroup %q: no hierarchy below %s", name, cgroupRoot), err)
		}
		hierarchies = hierarchies[:0]
		for _, path := range found {
			hierarchies = append(hierarchies, filepath.Dir(path))
		}
	}
	for _, hierarchy := range hierarchies {
		dir := filepath.Join(hierarchy, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // the kernel's own mode
			return fmt.Errorf("make cgroup %q: %w", name, err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(hierarchy, file))
			if err != nil {
				continue // not the cpuset hierarchy, or version 2, where empty means the parent's
			}
			if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
				return fmt.Errorf("give cgroup %q its CPUs: %w", name, err)
			}
		}
	}
	return nil
}
