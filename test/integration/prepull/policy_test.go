package prepull_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/prepull"
	"headstart.dev/prepull/controller"
	"headstart.dev/prepull/v1alpha1"
)

func names(status v1alpha1.PrepullPolicyStatus) []string {
	var out []string
	for _, img := range status.Images {
		if img.LeftOut == "" {
			out = append(out, strings.TrimPrefix(img.Image, "docker.io/library/"))
		}
	}
	return out
}

func reason(status v1alpha1.PrepullPolicyStatus, condition string) string {
	if c := apimeta.FindStatusCondition(status.Conditions, condition); c != nil {
		return c.Reason
	}
	return ""
}

func selecting(t *testing.T) *metav1.LabelSelector {
	t.Helper()
	return &metav1.LabelSelector{MatchLabels: map[string]string{"test": t.Name()}}
}

func (c *cluster) nodes(count int) []string {
	var out []string
	for i := range count {
		name := fmt.Sprintf("%s-%d", strings.ToLower(c.t.Name()), i)
		c.node(name, map[string]string{"test": c.t.Name(), corev1.LabelArchStable: "amd64"})
		out = append(out, name)
	}
	return out
}

func TestCountsFollowTheNodes(t *testing.T) {
	c := newCluster(t)
	nodes := c.nodes(4)
	startController(t, controller.Config{Resolver: newRegistry()})
	c.policy("counts", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{
		{Image: "small:v1"}, {Image: "large:v1", Priority: 100, Required: true},
	}})
	status := c.eventually("counts", "the images are listed, most important first, with digests", func(s v1alpha1.PrepullPolicyStatus) bool {
		return strings.Join(names(s), " ") == "large:v1 small:v1"
	})
	require.Equal(t, int64(1), status.ObservedGeneration)
	require.Equal(t, v1alpha1.NodeCounts{Matched: 4}, status.Nodes, "no node has an agent yet")
	require.Equal(t, digestOf("docker.io/library/large:v1", 0), status.Images[0].Digest)
	require.Equal(t, int64(100*mib), status.Images[0].Bytes)
	require.Equal(t, v1alpha1.ReasonPulling, reason(status, v1alpha1.ConditionReady))

	c.publish(nodes[0], having(status.Images...))
	c.publish(nodes[1], having(status.Images[0]))
	c.publish(nodes[2], prepull.Inventory{Failed: []string{status.Images[0].Image, status.Images[1].Image}})
	status = c.eventually("counts", "each node counts as what it is", func(s v1alpha1.PrepullPolicyStatus) bool {
		return s.Nodes == v1alpha1.NodeCounts{Matched: 4, Ready: 1, Pulling: 1, Failed: 1}
	})
	require.Equal(t, []int32{2, 1}, []int32{status.Images[0].Nodes, status.Images[1].Nodes})
	require.Equal(t, v1alpha1.ReasonFailed, reason(status, v1alpha1.ConditionReady))

	for _, node := range nodes {
		c.publish(node, having(status.Images...))
	}
	c.eventually("counts", "all are ready", func(s v1alpha1.PrepullPolicyStatus) bool {
		return s.Nodes == v1alpha1.NodeCounts{Matched: 4, Ready: 4} && reason(s, v1alpha1.ConditionReady) == v1alpha1.ReasonAllNodes
	})
}

func TestMovedTagMakesNodesPullAgain(t *testing.T) {
	c := newCluster(t)
	node := c.nodes(1)[0]
	reg := newRegistry()
	startController(t, controller.Config{Resolver: reg})
	policy := c.policy("moved", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "app:v1"}}})
	before := c.eventually("moved", "the image is listed", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 1 })
	c.publish(node, having(before.Images...))
	c.eventually("moved", "the node is ready", func(s v1alpha1.PrepullPolicyStatus) bool { return s.Nodes.Ready == 1 })

	const name = "docker.io/library/app:v1"
	reg.set(func() { reg.moved[name] = 1 })
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"pin":false}}`))
	require.NoError(t, c.Patch(t.Context(), policy, patch))
	after := c.eventually("moved", "a change of the policy looks its tags up again", func(s v1alpha1.PrepullPolicyStatus) bool {
		return len(s.Images) == 1 && s.Images[0].Digest == digestOf(name, 1) && s.Nodes.Ready == 0
	})
	require.Equal(t, v1alpha1.NodeCounts{Matched: 1, Pulling: 1}, after.Nodes, "the old image under the same name is not the image")
	require.Equal(t, 2, reg.lookups[name], "once for each change of the policy")
}

func TestUnresolvedImagesArePulledByTag(t *testing.T) {
	c := newCluster(t)
	reg := newRegistry()
	reg.broken["docker.io/library/private:v1"] = true
	startController(t, controller.Config{Resolver: reg})
	c.policy("private", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "private:v1"}, {Image: "public:v1"}}})
	status := c.eventually("private", "both are listed", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 2 })
	require.Empty(t, status.Images[0].Digest)
	require.NotEmpty(t, status.Images[1].Digest)
	condition := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionResolved)
	require.Equal(t, v1alpha1.ReasonResolveFailed, condition.Reason)
	require.Contains(t, condition.Message, `look up image "docker.io/library/private:v1": unauthorized`)
	complete := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionComplete)
	require.Equal(t, metav1.ConditionUnknown, complete.Status, "nobody knows what it takes")
	require.Equal(t, v1alpha1.ReasonSizeUnknown, complete.Reason)
}

// What a registry does not tell, nodes that have the image do; they go on pulling it by its tag.
func TestNodesTellWhatTheRegistryDoesNot(t *testing.T) {
	c := newCluster(t)
	node := c.nodes(1)[0]
	reg := newRegistry()
	reg.broken["registry.example/private:v1"] = true
	patch := `{"status":{"images":[{"names":["registry.example/private:v1","registry.example/private@sha256:abcd"],"sizeBytes":314572800}]}}`
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	require.NoError(t, c.Status().Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", []byte(patch))))
	c.publish(node, prepull.Inventory{Warm: []prepull.InventoryImage{{Name: "registry.example/private:v1", Digest: "abcd"}}})
	startController(t, controller.Config{Resolver: reg})
	limit := resource.MustParse("100Mi")
	c.policy("told", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "registry.example/private:v1"}}})
	status := c.eventually("told", "the node tells size and digest", func(s v1alpha1.PrepullPolicyStatus) bool {
		return len(s.Images) == 1 && s.Images[0].Bytes == 300*mib && reason(s, v1alpha1.ConditionComplete) == v1alpha1.ReasonAllFit
	})
	require.True(t, status.Images[0].Reported)
	require.Equal(t, "sha256:abcd", status.Images[0].Digest)
	require.Equal(t, v1alpha1.ReasonResolveFailed, reason(status, v1alpha1.ConditionResolved))
	require.EqualValues(t, 1, status.Nodes.Ready)
	c.policy("tight-told", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), MaxBytes: &limit, Images: []v1alpha1.Image{{Image: "registry.example/private:v1"}}})
	c.eventually("tight-told", "maxBytes bounds it", func(s v1alpha1.PrepullPolicyStatus) bool {
		return reason(s, v1alpha1.ConditionComplete) == v1alpha1.ReasonLeftOut
	})
}

// A Secret is read by its name, with the right that a Role gives, and shows nowhere.
func TestPullSecretsAreForLookups(t *testing.T) {
	c := newCluster(t)
	reg := newRegistry()
	reg.broken["registry.example/private:v1"] = true
	startController(t, controller.Config{Resolver: reg})
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	c.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "registry"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"registry.example":{"username":"u","password":"t0psecret"}}}`)},
	})
	spec := v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "registry.example/private:v1"}}}
	spec.ImagePullSecrets = []v1alpha1.ObjectRef{{Namespace: "shop", Name: "registry"}}
	policy := c.policy("secret", spec)
	status := c.eventually("secret", "the right is missing", func(s v1alpha1.PrepullPolicyStatus) bool {
		return reason(s, v1alpha1.ConditionResolved) == v1alpha1.ReasonResolveFailed
	})
	message := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionResolved).Message
	require.Contains(t, message, "read Secret shop/registry")
	require.NotContains(t, message, "t0psecret")

	for _, object := range mustRead(t, "../../../deploy/examples/pull-secret.yaml") {
		c.create(object)
	}
	require.NoError(t, c.Patch(t.Context(), policy, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"pin":false}}`))))
	c.eventually("secret", "the registry answers", func(s v1alpha1.PrepullPolicyStatus) bool {
		return reason(s, v1alpha1.ConditionResolved) == v1alpha1.ReasonAllResolved
	})
}

func mustRead(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := readObjects(file)
	require.NoError(t, err)
	return objects
}

func TestWhatDoesNotFitIsNamed(t *testing.T) {
	c := newCluster(t)
	reg := newRegistry()
	reg.sizes["docker.io/library/huge:v1"] = 900 * mib
	startController(t, controller.Config{Resolver: reg})
	limit := resource.MustParse("250Mi")
	c.policy("tight", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), MaxBytes: &limit, Images: []v1alpha1.Image{
		{Image: "first:v1"}, {Image: "huge:v1", Priority: 5}, {Image: "second:v1"}, {Image: "third:v1"},
	}})
	status := c.eventually("tight", "two fit", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 4 })
	require.Equal(t, []string{"first:v1", "second:v1"}, names(status))
	require.Equal(t, "docker.io/library/huge:v1", status.Images[2].Image)
	require.Equal(t, "needs 900Mi, and 250Mi of maxBytes 250Mi are left", status.Images[2].LeftOut)
	condition := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionComplete)
	require.Equal(t, v1alpha1.ReasonLeftOut, condition.Reason)
	require.Contains(t, condition.Message, "2 images are left out: docker.io/library/huge:v1: needs 900Mi")
}

func TestWorkloadsAreFollowed(t *testing.T) {
	c := newCluster(t)
	startController(t, controller.Config{Resolver: newRegistry()})
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "workloads"}}
	c.create(ns)
	template := func(image string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyAlways, InitContainers: []corev1.Container{{Name: "i", Image: "init:v1"}},
				Containers: []corev1.Container{{Name: "c", Image: image}},
			},
		}
	}
	web := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: ns.Name, Labels: map[string]string{"app": "web"}},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, Template: template("web:v1")},
	}
	c.create(web)
	other := web.DeepCopy()
	other.ObjectMeta = metav1.ObjectMeta{Name: "other", Namespace: ns.Name, Labels: map[string]string{"app": "other"}}
	other.Spec.Template = template("other:v1")
	c.create(other)
	cron := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: ns.Name},
		Spec:       batchv1.CronJobSpec{Schedule: "0 3 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template("batch:v1")}}},
	}
	cron.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	c.create(cron)
	c.create(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Rollout", "metadata": map[string]any{"name": "r", "namespace": ns.Name},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"image": "rollout:v1"}}}}},
	}})
	c.policy("workloads", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), FromWorkloads: []v1alpha1.WorkloadSource{
		{Kind: "Deployment", Namespace: ns.Name, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		{Kind: "CronJob", Namespace: ns.Name},
		{APIVersion: "example.com/v1", Kind: "Rollout"},
	}})
	c.eventually("workloads", "the images of all three kinds, those of init containers too", func(s v1alpha1.PrepullPolicyStatus) bool {
		return strings.Join(names(s), " ") == "init:v1 web:v1 batch:v1 rollout:v1" && reason(s, v1alpha1.ConditionAccepted) == v1alpha1.ReasonValid
	})

	web.Spec.Template = template("web:v2")
	changed := time.Now()
	require.NoError(t, c.Update(t.Context(), web))
	c.eventually("workloads", "a new template is seen without a pod of it", func(s v1alpha1.PrepullPolicyStatus) bool {
		return strings.Join(names(s), " ") == "init:v1 web:v2 batch:v1 rollout:v1"
	})
	t.Logf("a new template was in the status after %v", time.Since(changed).Round(time.Millisecond))
	require.NoError(t, c.Delete(t.Context(), cron, client.GracePeriodSeconds(0)))
	c.eventually("workloads", "a workload that goes takes its images along", func(s v1alpha1.PrepullPolicyStatus) bool {
		return strings.Join(names(s), " ") == "init:v1 web:v2 rollout:v1"
	})
}

func TestSpecThatCannotBeFollowedSaysSo(t *testing.T) {
	c := newCluster(t)
	startController(t, controller.Config{Resolver: newRegistry()})
	policy := c.policy("invalid", v1alpha1.PrepullPolicySpec{
		NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "App:v1"}, {Image: "good:v1"}},
		FromWorkloads: []v1alpha1.WorkloadSource{{APIVersion: "example.com/v1", Kind: "Missing"}},
	})
	status := c.eventually("invalid", "what can be followed is", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 1 })
	require.Equal(t, []string{"good:v1"}, names(status))
	condition := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionAccepted)
	require.Equal(t, v1alpha1.ReasonInvalid, condition.Reason)
	require.Contains(t, condition.Message, `parse image "App:v1"`)
	require.Contains(t, condition.Message, "find kind Missing: example.com/v1 of this cluster has none")
	var events corev1.EventList
	require.True(t, poll(t, func() bool {
		err := c.List(t.Context(), &events, client.InNamespace("default"), client.MatchingFields{"involvedObject.uid": string(policy.UID)})
		return err == nil && len(events.Items) > 0
	}))
	require.Len(t, events.Items, 1)
	require.Equal(t, v1alpha1.ReasonInvalid, events.Items[0].Reason)
}

func TestMaxNodesChoosesAndKeepsItsChoice(t *testing.T) {
	c := newCluster(t)
	nodes := c.nodes(6)
	for _, node := range nodes {
		c.publish(node, prepull.Inventory{})
	}
	startController(t, controller.Config{Resolver: newRegistry()})
	c.policy("some", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), MaxNodes: 2, Images: []v1alpha1.Image{{Image: "app:v1"}}})
	status := c.eventually("some", "two nodes are members", func(s v1alpha1.PrepullPolicyStatus) bool { return s.Nodes.Matched == 2 && s.Turn != nil })
	for _, node := range nodes {
		c.publish(node, having(status.Images...))
	}
	after := c.eventually("some", "both are ready", func(s v1alpha1.PrepullPolicyStatus) bool { return s.Nodes.Ready == 2 })
	require.Equal(t, v1alpha1.NodeCounts{Matched: 2, Ready: 2}, after.Nodes)
	require.Equal(t, status.Turn.Members, after.Turn.Members)
}

func TestRestartWithNothingChangedWritesNothing(t *testing.T) {
	c := newCluster(t)
	nodes := c.nodes(3)
	reg := newRegistry()
	stop := startController(t, controller.Config{Resolver: reg})
	limit := resource.MustParse("250Mi")
	c.policy("restart", v1alpha1.PrepullPolicySpec{
		NodeSelector: selecting(t), MaxBytes: &limit, Learn: &v1alpha1.Learn{},
		Images: []v1alpha1.Image{{Image: "a:v1"}, {Image: "b:v1"}, {Image: "c:v1"}},
	})
	status := c.eventually("restart", "listed", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 3 })
	for _, node := range nodes {
		c.publish(node, having(status.Images[:2]...))
	}
	c.eventually("restart", "ready", func(s v1alpha1.PrepullPolicyStatus) bool { return s.Nodes.Ready == 3 })
	stop()
	var before, after v1alpha1.PrepullPolicy
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: "restart"}, &before))

	// A registry that is away while the controller starts moves no tag and loses no size.
	reg.set(func() { reg.broken["docker.io/library/a:v1"] = true })
	startController(t, controller.Config{Resolver: reg})
	// The new controller is at work when it answers another policy.
	c.policy("restart-probe", v1alpha1.PrepullPolicySpec{NodeSelector: selecting(t), Images: []v1alpha1.Image{{Image: "probe:v1"}}})
	c.eventually("restart-probe", "listed", func(s v1alpha1.PrepullPolicyStatus) bool { return len(s.Images) == 1 })
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: "restart"}, &after))
	require.Equal(t, before.ResourceVersion, after.ResourceVersion)
}
