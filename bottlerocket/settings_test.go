package bottlerocket_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"headstart.dev/bottlerocket"
)

// documented lists, of Bottlerocket's settings reference, the keys of the tables that we write. "*" is a name that the
// user chooses. Sources: bottlerocket.dev/en/os/1.34.x/api/settings (host-containers, kubernetes) and 1.53.x
// (container-runtime, container-runtime-plugins); bottlerocket-settings-sdk settings-extensions/{kubernetes,host-containers}.
var documented = []string{
	"settings.host-containers.*.enabled",
	"settings.host-containers.*.source",
	"settings.host-containers.*.superpowered",
	"settings.host-containers.*.user-data",
	"settings.kubernetes.api-server",
	"settings.kubernetes.cluster-certificate",
	"settings.kubernetes.cluster-name",
	"settings.kubernetes.node-labels.*",
	"settings.kubernetes.node-taints.*",
	"settings.container-runtime.snapshotter",
	"settings.container-runtime-plugins.soci-snapshotter.pull-mode",
}

// karpenterKeeps are the keys of settings.kubernetes that survive Karpenter's own struct.
// Source: aws/karpenter-provider-aws pkg/providers/amifamily/bootstrap/bottlerocketsettings.go.
var karpenterKeeps = []string{"api-server", "cluster-certificate", "cluster-name", "node-labels", "node-taints"}

func full() bottlerocket.Settings {
	return bottlerocket.Settings{
		Image:         "registry.example/headstart-agent@sha256:" + strings.Repeat("ab", 32),
		Config:        []byte("kind: AgentConfig\n"),
		FastImagePull: true,
		Taints: []corev1.Taint{
			{Key: "readiness.k8s.io/headstart", Value: "pending", Effect: corev1.TaintEffectNoSchedule},
			{Key: "readiness.k8s.io/headstart", Value: "pending", Effect: corev1.TaintEffectNoExecute},
		},
		Labels:  map[string]string{"example.com/pool": "web"},
		Cluster: &bottlerocket.Cluster{Name: "prod", APIServer: "https://api.example", Certificate: "LS0="},
	}
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, toml.Unmarshal([]byte(text), &out))
	return out
}

// leaves lists the paths of all values that are no table.
func leaves(table map[string]any, path string, visit func(string, any)) {
	for key, value := range table {
		at := path + "." + key
		if child, ok := value.(map[string]any); ok {
			leaves(child, at, visit)
			continue
		}
		visit(strings.TrimPrefix(at, "."), value)
	}
}

func known(key string) bool {
	for _, doc := range documented {
		prefix, suffix, wild := strings.Cut(doc, "*")
		if key == doc || wild && strings.HasPrefix(key, prefix) && strings.HasSuffix(key, suffix) && len(key) > len(prefix)+len(suffix) {
			return true
		}
	}
	return false
}

func TestRenderWritesDocumentedKeysOnly(t *testing.T) {
	out, err := bottlerocket.Render(full())
	require.NoError(t, err)
	n := 0
	leaves(parse(t, out), "", func(key string, _ any) {
		n++
		require.True(t, known(key), "%s is not in Bottlerocket's settings reference", key)
	})
	require.Equal(t, 11, n, "every setting is rendered")
}

func TestKarpenterDropsNothing(t *testing.T) {
	out, err := bottlerocket.Render(full())
	require.NoError(t, err)
	settings, ok := parse(t, out)["settings"].(map[string]any)
	require.True(t, ok)
	kubernetes, ok := settings["kubernetes"].(map[string]any)
	require.True(t, ok)
	for key := range kubernetes {
		require.Contains(t, karpenterKeeps, key)
	}
}

func TestRenderHoldsWhatWasAsked(t *testing.T) {
	out, err := bottlerocket.Render(full())
	require.NoError(t, err)
	got := map[string]any{}
	leaves(parse(t, out), "", func(key string, value any) { got[key] = value })
	require.Equal(t, true, got["settings.host-containers.headstart.superpowered"], "the only kind that reaches the orchestrator's containerd")
	require.Equal(t, true, got["settings.host-containers.headstart.enabled"])
	userData, ok := got["settings.host-containers.headstart.user-data"].(string)
	require.True(t, ok)
	config, err := base64.StdEncoding.DecodeString(userData)
	require.NoError(t, err)
	require.Equal(t, "kind: AgentConfig\n", string(config))
	require.Equal(t, []any{"pending:NoSchedule", "pending:NoExecute"}, got["settings.kubernetes.node-taints.readiness.k8s.io/headstart"])
	require.Equal(t, "web", got["settings.kubernetes.node-labels.example.com/pool"])
	require.Equal(t, "soci", got["settings.container-runtime.snapshotter"])
}

func TestRenderUnderKarpenterLeavesKubernetesAlone(t *testing.T) {
	out, err := bottlerocket.Render(bottlerocket.Settings{Image: "registry.example/a", Config: []byte("a")})
	require.NoError(t, err)
	settings, ok := parse(t, out)["settings"].(map[string]any)
	require.True(t, ok)
	require.NotContains(t, settings, "kubernetes")
	require.NotContains(t, settings, "container-runtime")
}
