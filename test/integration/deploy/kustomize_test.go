package deploy_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

var update = flag.Bool("update", false, "write deploy/kustomize/base/headstart.yaml anew")

const generated = "# Written by the tests of deploy from the chart; edits are lost.\n"

// account is how an admission policy names one of our accounts.
var account = regexp.MustCompile(`request\.userInfo\.username == 'system:serviceaccount:headstart-system:([a-z-]+)'`)

// kustomizeBase is what the chart renders with its defaults, for overlays: no image that anybody could have put somewhere,
// and admission policies that find our accounts whatever namespace, prefix or suffix an overlay gives them. Kustomize
// renames objects, and not what is written in an expression.
func kustomizeBase(t *testing.T) string {
	t.Helper()
	nowhere := "@sha256:" + strings.Repeat("0", 64)
	cmd := exec.CommandContext(t.Context(), helm, "template", "headstart", chartDir, "--namespace", "headstart-system", "--kube-version", "1.37.2", "--no-hooks",
		"--set", "controller.image.repository=registry.invalid/headstart-controller", "--set", "controller.image.digest="+nowhere[1:],
		"--set", "agent.image.repository=registry.invalid/headstart-agent", "--set", "agent.image.digest="+nowhere[1:])
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	text := strings.ReplaceAll(string(out), "managed-by: Helm", "managed-by: kustomize")
	text = strings.ReplaceAll(text, nowhere, "")
	return generated + account.ReplaceAllString(text, `request.userInfo.username.matches('^system:serviceaccount:[^:]+:[a-z0-9.-]*$1[a-z0-9.-]*$$')`)
}

// TestKustomizeIsTheChart keeps the base what the chart renders with its defaults.
func TestKustomizeIsTheChart(t *testing.T) {
	want := kustomizeBase(t)
	file := filepath.Join(root, "deploy/kustomize/base/headstart.yaml")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("run the test with -update:\n%s", diff)
	}
	a := newAPI(t)
	a.namespace(t, "headstart-system")
	for _, obj := range decode(t, got) {
		a.dryRun(t, obj)
	}
}

// build runs kustomize over an overlay of the base, or over a folder.
func build(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kustomize, "build", dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, errs.String())
	return decode(t, out)
}

func overlay(t *testing.T, fields string) []*unstructured.Unstructured {
	t.Helper()
	base, err := filepath.Abs(filepath.Join(root, "deploy/kustomize/base"))
	require.NoError(t, err)
	// Kustomize takes relative paths only, and those of a temporary folder may lead through links.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	relative, err := filepath.Rel(dir, base)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: ["+relative+"]\n"+fields), 0o600))
	return build(t, dir)
}

// TestKustomizeCRDsApply builds them as "kubectl apply -k" does: with kustomize's own load restrictions.
func TestKustomizeCRDsApply(t *testing.T) {
	var names []string
	for _, obj := range build(t, filepath.Join(root, "deploy/kustomize/crds")) {
		names = append(names, obj.GetName())
	}
	require.ElementsMatch(t, []string{"gatepolicies.headstart.dev", "nodereadinessrules.headstart.dev", "prepullpolicies.headstart.dev", "warmpools.headstart.dev"}, names)
	// The upgrade hook may patch the CRDs that it names, and no others.
	hooks, err := os.ReadFile(filepath.Join(chartDir, "templates/hooks.yaml"))
	require.NoError(t, err)
	for _, name := range names {
		require.Contains(t, string(hooks), name)
	}
}

// TestAnOverlayKeepsTheFence moves and renames everything by an overlay, applies what the fence is made of, and acts as the
// agent's account: it must be held where it was.
func TestAnOverlayKeepsTheFence(t *testing.T) {
	objects := overlay(t, "namespace: platform\nnamePrefix: acme-\nnameSuffix: -eu\n")
	a := newAPI(t)
	a.namespace(t, "platform")
	policies := map[string]bool{}
	for _, obj := range objects {
		// The policy of rules asks what the controller's account was granted. Of an account that is not there it hears
		// "nothing": it refuses more, and lets nobody do anything.
		text := strings.ReplaceAll(string(marshal(t, obj)), "authorizer.serviceAccount('headstart-system', 'headstart-controller')", "")
		require.NotContains(t, text, "headstart-system", "%s %s: an overlay parts what it names", obj.GetKind(), obj.GetName())
		if obj.GetKind() == "ValidatingAdmissionPolicy" {
			policies[obj.GetName()] = true
		}
	}
	require.NotEmpty(t, policies)
	for _, obj := range objects {
		switch obj.GetKind() {
		case "ValidatingAdmissionPolicyBinding":
			name, _, _ := unstructured.NestedString(obj.Object, "spec", "policyName")
			require.Contains(t, policies, name)
		case "ValidatingAdmissionPolicy", "ClusterRole", "ClusterRoleBinding":
		default:
			continue
		}
		resource := a.resource(t, obj)
		_, err := resource.Create(t.Context(), obj, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = resource.Delete(cleanUpContext(t), obj.GetName(), metav1.DeleteOptions{}) })
	}
	admin, err := kubernetes.NewForConfig(cp.Config())
	require.NoError(t, err)
	_, err = admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "fenced"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	agent, err := kubernetes.NewForConfig(cp.ConfigFor("system:serviceaccount:platform:acme-headstart-agent-eu", "system:serviceaccounts", "system:authenticated"))
	require.NoError(t, err)
	// A policy is in force some time after it was made.
	require.Eventually(t, func() bool {
		_, err := agent.CoreV1().Nodes().Patch(t.Context(), "fenced", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}, "status")
		return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
	}, time.Minute, 50*time.Millisecond, "the agent's account may write to any node")
}
