package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"headstart.dev/agent"
)

const namespace = "headstart-system"

// write is one thing that somebody with the agent's credentials might try.
type write struct {
	// node is the one that is written to: ours, or another one.
	other       bool
	subresource string
	patch       string
	allowed     bool
	// ignored says that a server may drop it silently in place of refusing it.
	ignored bool
	// kubelet says that the kubelet's own identity may do it: the kubelet needs it, so nothing can refuse it.
	kubelet bool
}

var writes = map[string]write{
	"own conditions and annotations": {
		subresource: "status", allowed: true, kubelet: true,
		patch: `{"metadata":{"annotations":{"headstart.dev/timeline":"{}","headstart.dev/images":"{}"}},"status":{"conditions":[{"type":"headstart.dev/CNIReady","status":"True"}]}}`,
	},
	"own conditions of another node":      {other: true, subresource: "status", patch: `{"status":{"conditions":[{"type":"headstart.dev/CNIReady","status":"True"}]}}`},
	"a foreign condition":                 {subresource: "status", kubelet: true, patch: `{"status":{"conditions":[{"type":"Ready","status":"True","message":"IDENTITY"}]}}`},
	"the removal of a foreign condition":  {subresource: "status", kubelet: true, patch: `{"status":{"conditions":[{"$patch":"delete","type":"Ready"}]}}`},
	"capacity":                            {subresource: "status", kubelet: true, patch: `{"status":{"capacity":{"nvidia.com/gpu":"8"}}}`},
	"allocatable":                         {subresource: "status", kubelet: true, patch: `{"status":{"allocatable":{"cpu":"1000"}}}`},
	"an address":                          {subresource: "status", kubelet: true, patch: `{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}`},
	"an image":                            {subresource: "status", kubelet: true, patch: `{"status":{"images":[{"names":["x"],"sizeBytes":1}]}}`},
	"a taint":                             {patch: `{"spec":{"taints":[]}}`},
	"a taint by the status":               {subresource: "status", ignored: true, patch: `{"spec":{"taints":[]}}`},
	"a label":                             {kubelet: true, patch: `{"metadata":{"labels":{"example.com/pool":"secret"}}}`},
	"a label by the status":               {subresource: "status", kubelet: true, patch: `{"metadata":{"labels":{"example.com/pool":"secret"}}}`},
	"a restricted label by the status":    {subresource: "status", patch: `{"metadata":{"labels":{"node-restriction.kubernetes.io/x":"y"}}}`},
	"another annotation":                  {kubelet: true, patch: `{"metadata":{"annotations":{"example.com/mine":"{}"}}}`},
	"another annotation by the status":    {subresource: "status", kubelet: true, patch: `{"metadata":{"annotations":{"example.com/mine":"{}"}}}`},
	"the controller's record":             {patch: `{"metadata":{"annotations":{"headstart.dev/readiness":"` + forgedRecord + `"}}}`},
	"the controller's record by status":   {subresource: "status", patch: `{"metadata":{"annotations":{"headstart.dev/readiness":"` + forgedRecord + `"}}}`},
	"a rule passed, as upstream notes it": {subresource: "status", patch: `{"metadata":{"annotations":{"readiness.k8s.io/bootstrap-completed-x":"{}"}}}`},
	"the controller's label":              {patch: `{"metadata":{"labels":{"headstart.dev/cni-ready":"true"}}}`},
	"the label of a policy by the status": {subresource: "status", patch: `{"metadata":{"labels":{"prepull.headstart.dev/web":"true"}}}`},
	"a timeline without end":              {subresource: "status", patch: `{"metadata":{"annotations":{"headstart.dev/timeline":"` + strings.Repeat("x", 4097) + `"}}}`},
	"an inventory without end":            {subresource: "status", patch: `{"metadata":{"annotations":{"headstart.dev/images":"` + strings.Repeat("x", 16385) + `"}}}`},
	"conditions without end":              {subresource: "status", kubelet: true, patch: manyConditions()},
	"a message without end":               {subresource: "status", kubelet: true, patch: `{"status":{"conditions":[{"type":"headstart.dev/CNIReady","status":"True","message":"` + strings.Repeat("x", 1025) + `"}]}}`},
	"the removal of a foreign annotation": {subresource: "status", kubelet: true, patch: `{"metadata":{"annotations":{"example.com/foreign":null}}}`},
	"an ownerReference by the status":     {subresource: "status", patch: `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"x","uid":"x"}]}}`},
	"a finalizer by the status":           {subresource: "status", kubelet: true, patch: `{"metadata":{"finalizers":["example.com/stay"]}}`},
	"unschedulable":                       {kubelet: true, patch: `{"spec":{"unschedulable":true}}`},
}

// forgedRecord says that our rules hold somebody else's taint and label.
const forgedRecord = `{\"labels\":[\"node-restriction.kubernetes.io/tenant\"],\"rules\":{\"x\":{\"state\":\"held\",\"taint\":\"security.example.com/quarantine:NoExecute\"}}}`

func manyConditions() string {
	conditions := make([]string, 129)
	for i := range conditions {
		conditions[i] = fmt.Sprintf(`{"type":"headstart.dev/P%dReady","status":"True"}`, i)
	}
	return `{"status":{"conditions":[` + strings.Join(conditions, ",") + `]}}`
}

func TestEachIdentityMayWriteWhatItNeedsAndNothingElse(t *testing.T) {
	apply(t, "deploy/rbac/agent/agent.yaml", "deploy/admission/agent.yaml", "deploy/admission/nodes.yaml")
	makeNode(t, "another-node")
	for identity, connect := range map[string]func(t *testing.T, node string) *rest.Config{
		"impersonation": func(t *testing.T, node string) *rest.Config {
			t.Helper()
			config := podIdentity(t, node)
			config.Impersonate.UserName = "system:node:" + node
			return config
		},
		"serviceaccount": podIdentity,
		"node": func(_ *testing.T, node string) *rest.Config {
			return plane.ConfigFor("system:node:"+node, "system:nodes")
		},
	} {
		t.Run(identity, func(t *testing.T) {
			node := "identity-" + identity
			prepare(t, node)
			client, err := kubernetes.NewForConfig(connect(t, node))
			require.NoError(t, err)
			untilPoliciesHold(t, identity, client, node)
			if identity != "node" {
				notTwice(t, client, node)
			}
			for name, tc := range writes {
				t.Run(name, func(t *testing.T) {
					target, subresources := node, []string{}
					if tc.other {
						target = "another-node"
					}
					if tc.subresource != "" {
						subresources = append(subresources, tc.subresource)
					}
					before, err := admin(t).CoreV1().Nodes().Get(t.Context(), target, metav1.GetOptions{})
					require.NoError(t, err)
					_, err = client.CoreV1().Nodes().Patch(t.Context(), target, types.StrategicMergePatchType, []byte(strings.ReplaceAll(tc.patch, "IDENTITY", identity)), metav1.PatchOptions{}, subresources...)
					switch {
					case tc.ignored && err == nil:
					case tc.allowed || identity == "node" && tc.kubelet:
						require.NoError(t, err)
					default:
						require.True(t, refused(err), "%v", err)
					}
					after, err := admin(t).CoreV1().Nodes().Get(t.Context(), target, metav1.GetOptions{})
					require.NoError(t, err)
					require.Equal(t, before.Spec.Taints, after.Spec.Taints)
				})
			}
		})
	}
}

// notTwice replaces the conditions by as many that were all there before, one of them twice: the kubelet's Ready would be gone.
func notTwice(t *testing.T, client *kubernetes.Clientset, name string) {
	t.Helper()
	heartbeat(t, name, "True")
	kubelet, err := kubernetes.NewForConfig(plane.ConfigFor("system:node:"+name, "system:nodes"))
	require.NoError(t, err)
	_, err = kubelet.CoreV1().Nodes().Patch(t.Context(), name, types.StrategicMergePatchType,
		[]byte(`{"status":{"conditions":[{"type":"MemoryPressure","status":"False"}]}}`), metav1.PatchOptions{}, "status")
	require.NoError(t, err)
	node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	var twice []corev1.NodeCondition
	for range node.Status.Conditions {
		twice = append(twice, node.Status.Conditions[slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeMemoryPressure })])
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": twice}})
	require.NoError(t, err)
	_, err = client.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	require.True(t, refused(err), "%v", err)
}

// refused says whether the server knows us and forbids it, whoever of it does.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) }

func TestTheBestIdentityIsChosen(t *testing.T) {
	apply(t, "deploy/rbac/agent/agent.yaml", "deploy/admission/agent.yaml")
	name := nodeName(t)
	prepare(t, name)
	s := newSetup(t)
	s.setReady(t)
	wait, _ := s.start(t, true, agent.Overrides{Kubeconfig: kubeconfigFile(t, podIdentity(t, name))})
	require.NoError(t, wait())
	eventually(t, name, ready(appReady))
	require.Contains(t, s.logs.String(), `"identity"="impersonation"`)
}

func TestWithoutImpersonationTheServiceAccountPublishes(t *testing.T) {
	apply(t, "deploy/rbac/agent/agent.yaml", "deploy/admission/agent.yaml")
	require.NoError(t, admin(t).RbacV1().ClusterRoleBindings().Delete(t.Context(), "headstart-agent-impersonation", metav1.DeleteOptions{}))
	name := nodeName(t)
	prepare(t, name)
	s := newSetup(t)
	s.setReady(t)
	wait, _ := s.start(t, true, agent.Overrides{Kubeconfig: kubeconfigFile(t, podIdentity(t, name))})
	require.NoError(t, wait())
	eventually(t, name, ready(appReady))
	require.Contains(t, s.logs.String(), `"identity"="serviceaccount"`)
}

// prepare makes a Node with something of everybody on it.
func prepare(t *testing.T, name string) {
	t.Helper()
	makeNode(t, name)
	heartbeat(t, name, "False")
	_, err := admin(t).CoreV1().Nodes().Patch(t.Context(), name, types.StrategicMergePatchType,
		[]byte(`{"metadata":{"annotations":{"example.com/foreign":"x"}},"spec":{"taints":[{"key":"readiness.k8s.io/test","effect":"NoSchedule"}]}}`), metav1.PatchOptions{})
	require.NoError(t, err)
}

// untilPoliciesHold waits until the server has compiled the policies: it does so a moment after they are made.
func untilPoliciesHold(t *testing.T, identity string, client *kubernetes.Clientset, node string) {
	t.Helper()
	var last error
	defer func() { t.Logf("the last answer: %v", last) }()
	attempt := 0
	require.Eventually(t, func() bool {
		attempt++
		_, err := client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType,
			fmt.Appendf(nil, `{"metadata":{"annotations":{"headstart.dev/readiness":"%d"}}}`, attempt), metav1.PatchOptions{}, "status")
		last = err
		return refused(err)
	}, settleTime, 50*time.Millisecond)
	if identity == "node" {
		return
	}
	require.Eventually(t, func() bool {
		// A patch that changes nothing is no write: each attempt has to differ.
		attempt++
		_, err := client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType,
			fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"Unknown","message":"%d"}]}}`, attempt), metav1.PatchOptions{}, "status")
		last = err
		return refused(err)
	}, settleTime, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType,
			[]byte(`{"status":{"conditions":[{"type":"headstart.dev/FirstReady","status":"True"}]}}`), metav1.PatchOptions{}, "status")
		last = err
		return err == nil
	}, settleTime, 50*time.Millisecond)
}

// podIdentity is what the agent's DaemonSet pod on a node has: a token that is bound to the pod.
func podIdentity(t *testing.T, node string) *rest.Config {
	t.Helper()
	core := admin(t).CoreV1()
	ignoreExisting(t, func() error {
		_, err := core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		return err
	})
	ignoreExisting(t, func() error {
		_, err := core.ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "headstart-agent"}}, metav1.CreateOptions{})
		return err
	})
	pod, err := core.Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-" + node},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: "headstart-agent",
			Containers: []corev1.Container{{Name: "agent", Image: "x"}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	hour := int64(3600)
	token, err := core.ServiceAccounts(namespace).CreateToken(t.Context(), "headstart-agent", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: &hour,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	config := rest.AnonymousClientConfig(plane.Config())
	config.BearerToken = token.Status.Token
	return config
}

// kubeconfigFile writes credentials down, because a pod's files cannot be put in place here.
func kubeconfigFile(t *testing.T, config *rest.Config) string {
	t.Helper()
	file := clientcmdapi.NewConfig()
	file.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData, CertificateAuthority: config.CAFile}
	file.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	file.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	file.CurrentContext = "x"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*file, path))
	return path
}

func ignoreExisting(t *testing.T, create func() error) {
	t.Helper()
	if err := create(); !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
}

// apply creates what the shipped manifests hold, as "kubectl apply" would, and removes it after the test.
func apply(t *testing.T, files ...string) {
	t.Helper()
	client, err := dynamic.NewForConfig(plane.Config())
	require.NoError(t, err)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery.NewDiscoveryClientForConfigOrDie(plane.Config())))
	for _, file := range files {
		raw, err := os.ReadFile(filepath.Join("../../..", file))
		require.NoError(t, err)
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
		for {
			object := &unstructured.Unstructured{}
			if err := decoder.Decode(object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("decode %s: %v", file, err)
			}
			if len(object.Object) == 0 {
				continue
			}
			kind := object.GroupVersionKind()
			mapping, err := mapper.RESTMapping(schema.GroupKind{Group: kind.Group, Kind: kind.Kind}, kind.Version)
			require.NoError(t, err)
			_, err = client.Resource(mapping.Resource).Create(t.Context(), object, metav1.CreateOptions{})
			require.NoError(t, err, fmt.Sprintf("%s %s", kind.Kind, object.GetName()))
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), settleTime)
				defer cancel()
				_ = client.Resource(mapping.Resource).Delete(ctx, object.GetName(), metav1.DeleteOptions{})
			})
		}
	}
}
