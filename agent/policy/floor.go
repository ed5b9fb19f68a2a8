package policy

import (
	"os"

	"sigs.k8s.io/yaml"
)

// kubeletConfigs are where a kubelet's config lies: kubeadm and most others, and an EKS node.
var kubeletConfigs = []string{"/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet/config.json"}

// defaultGCHigh is at which use of the image filesystem a kubelet begins to delete images unless its config says so.
// Source: kubernetes pkg/kubelet/apis/config/v1beta1/defaults.go@v1.37.2, imageGCHighThresholdPercent.
const defaultGCHigh = 85

// FreeFloor returns which percentage of the image filesystem must stay free so that pulling never makes the kubelet's
// image garbage collection begin: it would delete what others pulled to make room for what nobody has asked for yet. It
// is 0 where no kubelet's config is found, because then nobody collects.
func FreeFloor() int { return freeFloor(kubeletConfigs) }

func freeFloor(files []string) int {
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var config struct {
			High *int `json:"imageGCHighThresholdPercent"`
		}
		high := defaultGCHigh
		if yaml.Unmarshal(content, &config) == nil && config.High != nil {
			high = *config.High
		}
		if high <= 0 || high >= 100 {
			return 0 // 100 turns the collection off
		}
		// One more: the collection begins at the threshold, not above it.
		return 100 - high + 1
	}
	return 0
}
