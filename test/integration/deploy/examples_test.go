package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// parentChart has ours as its dependency, and is the chart that the values of subchart.yaml are for.
func parentChart(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(
		"apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies: [{name: headstart, version: 0.1.0, condition: headstart.enabled}]\n"), 0o600))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "charts/headstart"), os.DirFS(chartDir)))
	return dir
}

// templateWith renders a chart with a file of values and our images.
func templateWith(t *testing.T, chart, values, prefix string, more ...string) []*unstructured.Unstructured {
	t.Helper()
	args := []string{"template", "headstart", chart, "--namespace", namespace, "--kube-version", "1.37.2", "-f", values}
	for _, set := range ownImages {
		args = append(args, "--set", prefix+set)
	}
	out, errs, err := runHelm(t, append(args, more...)...)
	require.NoError(t, err, errs)
	return decode(t, []byte(out))
}

// TestExampleValuesApply has the API server check what each platform's values render.
func TestExampleValuesApply(t *testing.T) {
	a := newAPI(t)
	a.namespace(t, namespace)
	files, err := filepath.Glob(filepath.Join(root, "deploy/examples/values/*.yaml"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 9)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			chart, prefix := chartDir, ""
			if filepath.Base(file) == "subchart.yaml" {
				chart, prefix = parentChart(t), "headstart."
			}
			objects := templateWith(t, chart, file, prefix)
			kinds := map[string]int{}
			for _, obj := range objects {
				kinds[obj.GetKind()]++
				a.dryRun(t, obj)
			}
			require.Positive(t, kinds["DaemonSet"])
			require.Positive(t, kinds["Deployment"])
			require.Positive(t, kinds["ValidatingAdmissionPolicy"])
		})
	}
}

// TestPlatformsGetWhatTheyAskFor looks at what the values are for.
func TestPlatformsGetWhatTheyAskFor(t *testing.T) {
	values := func(name string) string { return filepath.Join(root, "deploy/examples/values", name) }
	find := func(objects []*unstructured.Unstructured, kind string) string {
		for _, obj := range objects {
			if obj.GetKind() == kind {
				return string(marshal(t, obj))
			}
		}
		return ""
	}
	require.NotContains(t, find(templateWith(t, chartDir, values("openshift.yaml"), ""), "Deployment"), "runAsUser")
	require.Contains(t, find(templateWith(t, chartDir, values("gke.yaml"), ""), "ResourceQuota"), "system-node-critical")
	require.Contains(t, find(templateWith(t, chartDir, values("microk8s.yaml"), ""), "DaemonSet"), `"mountPath":"/var/snap/microk8s/common/run"`)
	require.Contains(t, find(templateWith(t, chartDir, values("fargate.yaml"), ""), "DaemonSet"), `"fargate"`)
	deployment := find(templateWith(t, parentChart(t), values("subchart.yaml"), "headstart."), "Deployment")
	require.Contains(t, deployment, `"image":"mirror.example/headstart-controller:`)
	require.Contains(t, deployment, `"imagePullSecrets":[{"name":"mirror"}]`)
	require.Empty(t, templateWith(t, parentChart(t), values("subchart.yaml"), "headstart.", "--set", "headstart.enabled=false"))
	require.Empty(t, template(t, "enabled=false"))
}

func crdNames(objects []*unstructured.Unstructured) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, obj := range objects {
		if obj.GetKind() == "CustomResourceDefinition" {
			out[obj.GetName()] = obj.GetAnnotations()
		}
	}
	return out
}

func TestCRDsAreKept(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.yaml")
	require.NoError(t, os.WriteFile(none, nil, 0o600))
	forms := []string{"--set", "controller.rules={native,guide,upstream}"}
	all := crdNames(templateWith(t, chartDir, none, "", append(forms, "--include-crds")...))
	require.Len(t, all, 6)
	for name, annotations := range all {
		require.Equal(t, "keep", annotations["helm.sh/resource-policy"], name)
	}
	require.Empty(t, crdNames(templateWith(t, chartDir, none, "", append(forms, "--include-crds", "--set", "crds.install=false")...)))
}

// TestTheChartIsWholeOrFails takes away what security rests on, as a fetcher does that drops files.
func TestTheChartIsWholeOrFails(t *testing.T) {
	for _, lost := range []string{"files", "files/rbac", "files/admission", "files/admission/agent.yaml", "files/rbac/agent/agent.yaml", "files/index.yaml"} {
		t.Run(strings.ReplaceAll(lost, "/", "_"), func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(chartDir)))
			require.NoError(t, os.RemoveAll(filepath.Join(dir, lost)))
			args := []string{"template", "headstart", dir, "--kube-version", "1.37.2"}
			for _, set := range ownImages {
				args = append(args, "--set", set)
			}
			_, errs, err := runHelm(t, args...)
			require.Error(t, err)
			require.Contains(t, errs, "not complete")
		})
	}
}

// TestSharedObjectsOutliveTheRelease installs where the Kubernetes SIG's controller has left its CRD, and takes a form of rule
// away again: the users' rules stay.
func TestSharedObjectsOutliveTheRelease(t *testing.T) {
	a := newAPI(t)
	const life = "headstart-life"
	crd := readManifests(t, "deploy/crd/compat/readiness*.yaml")
	for _, objects := range crd {
		_, err := a.resource(t, objects[0]).Create(t.Context(), objects[0], metav1.CreateOptions{})
		require.NoError(t, err)
	}
	definitions := a.client.Resource(crdResource)
	t.Cleanup(func() {
		for _, name := range []string{"nodereadinessrules.nodereadiness.k8s.io", "nodereadinessrules.readiness.node.x-k8s.io"} {
			_ = definitions.Delete(cleanUpContext(t), name, metav1.DeleteOptions{})
		}
	})
	release := func(command string, rules string) {
		t.Helper()
		args := []string{command, "headstart", chartDir, "--namespace", life, "--kubeconfig", cp.Kubeconfig("admin", "system:masters"), "--no-hooks", "--set", "controller.rules={" + rules + "}"}
		if command == "install" {
			args = append(args, "--create-namespace")
		}
		for _, set := range ownImages {
			args = append(args, "--set", set)
		}
		out, errs, err := runHelm(t, args...)
		require.NoError(t, err, out+errs)
	}
	release("install", "native,guide,upstream")
	t.Cleanup(func() {
		_, _, _ = runHelmIn(cleanUpContext(t), "uninstall", "headstart", "--namespace", life, "--kubeconfig", cp.Kubeconfig("admin", "system:masters"), "--no-hooks")
	})
	release("upgrade", "native")
	for _, name := range []string{"nodereadinessrules.nodereadiness.k8s.io", "nodereadinessrules.readiness.node.x-k8s.io"} {
		got, err := definitions.Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		require.Nil(t, got.GetDeletionTimestamp(), "%s goes, and all rules with it", name)
	}
	release("upgrade", "native,guide")
}
