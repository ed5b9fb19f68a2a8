package kubelet_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"headstart.dev/agent/internal/kubelet"
)

var startup = corev1.Taint{Key: "readiness.k8s.io/headstart", Value: "pending", Effect: corev1.TaintEffectNoSchedule}

// registersWith is what a kubelet that reads the folder registers with: the last list wins, whole.
func registersWith(t *testing.T, dir string) []corev1.Taint {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.conf"))
	require.NoError(t, err)
	var taints []corev1.Taint
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		var config struct {
			Kind, APIVersion   string
			RegisterWithTaints []corev1.Taint
		}
		require.NoError(t, yaml.UnmarshalStrict(raw, &config))
		require.Equal(t, "KubeletConfiguration", config.Kind)
		if config.RegisterWithTaints != nil {
			taints = config.RegisterWithTaints
		}
	}
	return taints
}

func TestTaintsJoinThoseOfTheFilesBefore(t *testing.T) {
	base := filepath.Join(t.TempDir(), "config.json")
	dir := base + ".d"
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(base, []byte(`{"kind":"KubeletConfiguration","registerWithTaints":[{"key":"lost","effect":"NoSchedule"}]}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "40-nodeadm.conf"), []byte(`
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
registerWithTaints:
- {key: karpenter.sh/unregistered, effect: NoExecute}
- {key: readiness.k8s.io/headstart, value: old, effect: NoSchedule}
`), 0o600))
	for range 2 {
		require.NoError(t, kubelet.WriteRegistration(kubelet.Registration{Taints: []corev1.Taint{startup}, ConfigDir: dir}))
		require.Equal(t, []corev1.Taint{{Key: "karpenter.sh/unregistered", Effect: corev1.TaintEffectNoExecute}, startup}, registersWith(t, dir))
	}
}

func TestTaintsOfTheBaseConfigAreKept(t *testing.T) {
	base := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(base, []byte(`{"kind":"KubeletConfiguration","registerWithTaints":[{"key":"base","effect":"NoSchedule"}]}`), 0o600))
	require.NoError(t, kubelet.WriteRegistration(kubelet.Registration{Taints: []corev1.Taint{startup}, ConfigDir: base + ".d"}))
	require.Equal(t, []corev1.Taint{{Key: "base", Effect: corev1.TaintEffectNoSchedule}, startup}, registersWith(t, base+".d"))
}

func TestLabelsAreAnArgumentInAnEnvironmentFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "kubelet.env")
	require.NoError(t, kubelet.WriteRegistration(kubelet.Registration{Labels: map[string]string{"b": "2", "a": "1"}, ArgsFile: file}))
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "HEADSTART_KUBELET_ARGS=--node-labels=a=1,b=2\n", string(raw))
}

func TestNothingAskedNothingWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	require.NoError(t, kubelet.WriteRegistration(kubelet.Registration{ConfigDir: dir, ArgsFile: filepath.Join(dir, "env")}))
	require.NoDirExists(t, dir)
}

func TestAConfigThatDoesNotParseIsAnErrorThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "10-x.conf"), []byte("{"), 0o600))
	err := kubelet.WriteRegistration(kubelet.Registration{Taints: []corev1.Taint{startup}, ConfigDir: dir})
	require.ErrorContains(t, err, "10-x.conf")
}
