package testenv_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"headstart.dev/test/testenv"
)

const widgetCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.testenv.example}
spec:
  group: testenv.example
  scope: Cluster
  names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`

func client(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return c
}

func TestControlPlane(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	crds := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(crds, "widget.yaml"), []byte(widgetCRD), 0o600))
	cp, err := testenv.NewControlPlane(t.Context(), testenv.ControlPlaneConfig{
		Scheduler: true, ControllerManager: true, CRDDirs: []string{crds},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cp.Stop()) })
	admin := client(t, cp.Config())

	t.Run("serves the API and the CRDs", func(t *testing.T) {
		_, err := admin.CoreV1().Namespaces().Create(t.Context(),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		require.NoError(t, admin.RESTClient().Get().AbsPath("/apis/testenv.example/v1/widgets").Do(t.Context()).Error())
	})
	t.Run("authenticates any user and leaves the rest to RBAC", func(t *testing.T) {
		node := client(t, cp.ConfigFor("system:node:n1", "system:nodes"))
		_, err := node.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		_, err = node.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, metav1.CreateOptions{})
		require.True(t, apierrors.IsForbidden(err), "NodeRestriction must refuse another node's name, got %v", err)
		_, err = client(t, cp.ConfigFor("nobody")).CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
		require.True(t, apierrors.IsForbidden(err), "got %v", err)
	})
	t.Run("writes a kubeconfig that works", func(t *testing.T) {
		config, err := clientcmd.BuildConfigFromFlags("", cp.Kubeconfig("someone", "system:masters"))
		require.NoError(t, err)
		_, err = client(t, config).CoreV1().Namespaces().Get(t.Context(), "team", metav1.GetOptions{})
		require.NoError(t, err)
	})
	t.Run("keeps its data and port over a restart of the API server", func(t *testing.T) {
		require.NoError(t, cp.StopAPIServer())
		_, err := admin.CoreV1().Namespaces().Get(t.Context(), "team", metav1.GetOptions{})
		require.ErrorContains(t, err, "connection refused")
		require.NoError(t, cp.StartAPIServer(t.Context()))
		_, err = admin.CoreV1().Namespaces().Get(t.Context(), "team", metav1.GetOptions{})
		require.NoError(t, err)
	})
	t.Run("leaves nothing when it is stopped", func(t *testing.T) {
		kubeconfig := cp.Kubeconfig("someone")
		id := strings.TrimPrefix(filepath.Base(filepath.Dir(kubeconfig)), "headstart-testenv-")
		require.NotEmpty(t, marked(t, id), "the servers must carry the workspace's mark while they run")
		require.NoError(t, cp.Stop())
		require.Empty(t, marked(t, id))
		require.NoDirExists(t, filepath.Dir(kubeconfig))
	})
}

// marked returns the command lines of the processes that carry a workspace's mark.
func marked(t *testing.T, id string) []string {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	var found []string
	for _, path := range environs {
		environ, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(environ), "HEADSTART_TESTENV_ID="+id) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil {
			found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}
