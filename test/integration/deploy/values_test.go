package deploy_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestWhatPlatformsForceReachesItsPlace sets each value that some platform forces on everybody, and looks for it in every object
// that it is for: a value that is accepted and ignored is worse than one that is refused.
func TestWhatPlatformsForceReachesItsPlace(t *testing.T) {
	both, all := []string{"Deployment", "DaemonSet"}, []string{"Deployment", "DaemonSet", "Job"}
	for name, tc := range map[string]struct {
		sets  []string
		kinds []string
		want  string
	}{
		"pull secrets":            {[]string{"imagePullSecrets[0].name=mine"}, all, `"imagePullSecrets":[{"name":"mine"}]`},
		"a parent's pull secrets": {[]string{"global.imagePullSecrets={theirs}"}, all, `"imagePullSecrets":[{"name":"theirs"}]`},
		"a parent's registry":     {[]string{"global.imageRegistry=mirror.example"}, all, `"image":"mirror.example/headstart-`},
		"a proxy":                 {[]string{"proxy.httpsProxy=http://p:3128"}, all, `{"name":"HTTPS_PROXY","value":"http://p:3128"}`},
		"labels of all":           {[]string{"commonLabels.team=a"}, all, `"team":"a"`},
		"annotations of all":      {[]string{"commonAnnotations.owner=a"}, all, `"owner":"a"`},
		"affinity":                {[]string{"controller.affinity.podAntiAffinity.x=1"}, []string{"Deployment", "Job"}, `"podAntiAffinity":`},
		"the agent's priority":    {[]string{"agent.priorityClassName=mine"}, []string{"DaemonSet"}, `"priorityClassName":"mine"`},
		"the controller's":        {[]string{"controller.priorityClassName=mine"}, []string{"Deployment"}, `"priorityClassName":"mine"`},
		"environment": {
			[]string{"controller.env[0].name=A", "controller.env[0].value=b", "agent.env[0].name=A", "agent.env[0].value=b"}, all, `{"name":"A","value":"b"}`,
		},
		"pods' annotations":          {[]string{"controller.podAnnotations.x=y", "agent.podAnnotations.x=y"}, both, `"x":"y"`},
		"pods' labels":               {[]string{"controller.podLabels.x=y", "agent.podLabels.x=y"}, both, `"x":"y"`},
		"arguments":                  {[]string{"controller.extraArgs={--log-level=debug}", "agent.extraArgs={--log-level=debug}"}, both, `"--log-level=debug"`},
		"history":                    {[]string{"controller.revisionHistoryLimit=3", "agent.revisionHistoryLimit=3"}, both, `"revisionHistoryLimit":3`},
		"the controller's roll-outs": {[]string{"controller.updateStrategy.rollingUpdate.maxSurge=2"}, []string{"Deployment"}, `"maxSurge":2`},
		"the agents' roll-outs":      {[]string{"agent.updateStrategy.rollingUpdate.maxUnavailable=2"}, []string{"DaemonSet"}, `"maxUnavailable":2`},
		"SELinux":                    {[]string{"agent.securityContext.seLinuxOptions.type=spc_t"}, []string{"DaemonSet"}, `"seLinuxOptions":{"type":"spc_t"}`},
		"the pods' user":             {[]string{"controller.podSecurityContext.runAsUser=1234"}, []string{"Deployment", "Job"}, `"runAsUser":1234`},
		"an API server's port":       {[]string{"controller.networkPolicy.extraEgress[0].ports[0].port=16443"}, []string{"NetworkPolicy"}, `16443`},
		"an account's role":          {[]string{"controller.serviceAccount.annotations.role=r", "agent.serviceAccount.annotations.role=r"}, []string{"ServiceAccount"}, `"role":"r"`},
		"the kubelet's root":         {[]string{"agent.kubeletDir=/data/kubelet"}, []string{"DaemonSet"}, `"/data/kubelet`},
		"containerd's root":          {[]string{"agent.directPull=true", "agent.containerdRoot=/data/containerd"}, []string{"DaemonSet"}, `"/data/containerd"`},
		"containerd's socket":        {[]string{"agent.config.containerd.address=unix:///data/c/c.sock"}, []string{"DaemonSet"}, `"path":"/data/c"`},
		"GKE's quota":                {[]string{"resourceQuota.create=true"}, []string{"ResourceQuota"}, `"system-node-critical"`},
		"OpenShift's SCC":            {[]string{"agent.scc=privileged"}, []string{"RoleBinding"}, `"system:openshift:scc:privileged"`},
	} {
		t.Run(name, func(t *testing.T) {
			objects := template(t, tc.sets...)
			for _, kind := range tc.kinds {
				require.NotEmpty(t, lacking(t, template(t), kind, tc.want), "%s has it without being told", kind)
				require.Empty(t, lacking(t, objects, kind, tc.want), tc.want)
			}
		})
	}
}

// lacking returns which objects of the kind do not have the text: all of them must, or, of kinds of which there are several for
// several purposes, one.
func lacking(t *testing.T, objects []*unstructured.Unstructured, kind, want string) []string {
	t.Helper()
	var without []string
	found := false
	for _, obj := range objects {
		if obj.GetKind() != kind {
			continue
		}
		if strings.Contains(string(marshal(t, obj)), want) {
			found = true
		} else {
			without = append(without, kind+" "+obj.GetName())
		}
	}
	several := map[string]bool{"ServiceAccount": true, "RoleBinding": true, "NetworkPolicy": true}
	switch {
	case found && several[kind]:
		return nil
	case !found && len(without) == 0:
		return []string{"no " + kind}
	}
	return without
}

// TestNotesSayWhatIsMissing asks Helm what it would tell who installs into a namespace that refuses the agents' pods: Helm itself
// calls such a release deployed.
func TestNotesSayWhatIsMissing(t *testing.T) {
	a := newAPI(t)
	for level, want := range map[string]string{"baseline": `MISSING: the namespace enforces the Pod Security Standard "baseline"`, "": "Should no agent's pod appear", "privileged": ""} {
		t.Run("level "+level, func(t *testing.T) {
			name := strings.TrimSuffix("notes-"+level, "-")
			ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
			if level != "" {
				ns.SetLabels(map[string]string{"pod-security.kubernetes.io/enforce": level})
			}
			_, err := a.resource(t, ns).Create(t.Context(), ns, metav1.CreateOptions{})
			require.NoError(t, err)
			args := []string{"install", "headstart", chartDir, "--namespace", name, "--dry-run=server", "--kubeconfig", cp.Kubeconfig("admin", "system:masters")}
			for _, set := range ownImages {
				args = append(args, "--set", set)
			}
			out, errs, err := runHelm(t, args...)
			require.NoError(t, err, errs)
			_, notes, found := strings.Cut(out, "NOTES:")
			require.True(t, found)
			require.Contains(t, notes, want)
			require.Equal(t, level != "privileged", strings.Contains(notes, "kubectl label namespace "+name+" pod-security.kubernetes.io/enforce=privileged"))
		})
	}
}
