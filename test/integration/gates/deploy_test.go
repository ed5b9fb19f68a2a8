package gates_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

const (
	controllerUser  = "system:serviceaccount:headstart-system:headstart-controller"
	controllerGroup = "system:serviceaccounts"
)

// apply makes the objects of a shipped file and removes them after the test.
func apply(t testing.TB, c client.Client, path string) {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "..", "..", "deploy", path))
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			require.ErrorContains(t, err, "EOF")
			return
		}
		if len(object.Object) == 0 {
			continue
		}
		require.NoError(t, c.Create(t.Context(), object))
		t.Cleanup(func() { _ = c.Delete(afterwards(t), object) })
	}
}

// asDeployed applies the shipped roles and admission policies of the controller.
func asDeployed(t testing.TB, c client.Client, more ...string) {
	t.Helper()
	robots := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "headstart-system"}}
	if err := c.Create(t.Context(), robots); !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	for _, file := range append([]string{"rbac/controller/core.yaml", "rbac/controller/gates.yaml", "admission/gates.yaml", "admission/controller.yaml"}, more...) {
		apply(t, c, file)
	}
}

func TestTheControllerRunsWithTheShippedRightsOnly(t *testing.T) {
	c := newClient(t)
	asDeployed(t, c, "rbac/controller/gates-references.yaml")
	robot := plane.ConfigFor(controllerUser, controllerGroup)
	robot.QPS = -1
	limited, err := client.New(robot, client.Options{Scheme: scheme(t)})
	require.NoError(t, err)
	ns, gate := namespace(t, c), "example.com/deployed"
	policy(t, c, "deployed", v1alpha1.GatePolicySpec{GateName: gate, Requires: append(images(), references()...)})
	node(t, c, "deployed-warm", capacity("2"), warm(appImage))

	victim := makePod(ns, "victim", "other.example/gate").create(t, c)
	refused := map[string]struct{ patch, why string }{
		"a label":       {`{"metadata":{"labels":{"a":"b"}}}`, "may not write labels"},
		"an annotation": {`{"metadata":{"annotations":{"a":"b"}}}`, "may not write annotations"},
		"a finalizer":   {`{"metadata":{"finalizers":["example.com/x"]}}`, "may not write finalizers"},
		"an image":      {`{"spec":{"containers":[{"name":"app","image":"evil"}]}}`, "may not write containers"},
		"a deadline":    {`{"spec":{"activeDeadlineSeconds":5}}`, "may not write deadlines"},
		"a selector":    {`{"spec":{"nodeSelector":{"a":"b"}}}`, "may not write the node selector"},
	}
	for name, tc := range refused {
		t.Run(name, func(t *testing.T) {
			patch := client.RawPatch(types.StrategicMergePatchType, []byte(tc.patch))
			eventually(t, func() bool { // the policy takes a moment to be in force
				return apierrors.IsInvalid(limited.Patch(t.Context(), victim.DeepCopy(), patch, client.DryRunAll)) ||
					apierrors.IsForbidden(limited.Patch(t.Context(), victim.DeepCopy(), patch, client.DryRunAll))
			}, "the patch was not refused")
			require.ErrorContains(t, limited.Patch(t.Context(), victim.DeepCopy(), patch, client.DryRunAll), tc.why)
		})
	}

	startController(t, robot)
	pod := makePod(ns, "web", gate).envFrom("flags").create(t, c)
	configMap(t, c, ns, "flags")
	lifted := awaitGates(t, c, pod)
	require.NotNil(t, lifted.Spec.Affinity, "steering is allowed")
	awaitEvent(t, c, ns, "web", "GateLifted", corev1.EventTypeNormal)
	eventually(t, func() bool { return readPolicy(t, c, "deployed").Status.LiftedTotal == 1 }, "the status was not written")

	// What is written beside pods: labels of nodes, PrepullPolicies.
	required := "example.com/deployed-required"
	owner := policy(t, c, "deployed-required", v1alpha1.GatePolicySpec{GateName: required, Requires: pulling(1), Placement: v1alpha1.PlacementRequired})
	late := makePod(ns, "late", required).image("registry.example/deployed:v1").create(t, c)
	there := func() bool { policies, _ := asked(t, c, owner); return len(policies) == 1 }
	eventually(t, there, "no PrepullPolicy was made")
	setWarm(t, c, "deployed-warm", warm("registry.example/deployed:v1"))
	require.NotNil(t, awaitGates(t, c, late).Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
	eventually(t, func() bool { return !there() }, "the PrepullPolicy was not deleted")
}

func TestTheRoleCanNameTheGates(t *testing.T) {
	c := newClient(t)
	asDeployed(t, c)
	role := &rbacv1.ClusterRole{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: "headstart-controller-gates"}, role))
	for i := range role.Rules {
		if role.Rules[i].Resources[0] == "schedulinggates" {
			role.Rules[i].ResourceNames = []string{"example.com/mine"}
		}
	}
	require.NoError(t, c.Update(t.Context(), role))
	limited, err := client.New(plane.ConfigFor(controllerUser, controllerGroup), client.Options{Scheme: scheme(t)})
	require.NoError(t, err)
	pod := makePod(namespace(t, c), "web", "example.com/mine", "example.com/theirs").create(t, c)
	lift := func(gate string, how ...client.PatchOption) error {
		patch := `{"spec":{"schedulingGates":[{"$patch":"delete","name":"` + gate + `"}]}}`
		return limited.Patch(t.Context(), pod.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, []byte(patch)), how...)
	}
	// Dry runs until the policy is in force: before that either gate would really go.
	eventually(t, func() bool {
		return lift("example.com/theirs", client.DryRunAll) != nil && lift("example.com/mine", client.DryRunAll) == nil
	},
		"not held to its gates")
	require.NoError(t, lift("example.com/mine"))
	require.ErrorContains(t, lift("example.com/theirs"), "no right to lift")
	awaitGates(t, c, pod, "example.com/theirs")
}

func TestShippedPoliciesAreAccepted(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	for _, name := range []string{"images", "config", "csi", "gpu"} {
		apply(t, c, "policies/"+name+".yaml")
		eventually(t, func() bool {
			p := readPolicy(t, c, "headstart-"+name)
			return p.Spec.GateName == "headstart.dev/"+name && meta.IsStatusConditionTrue(p.Status.Conditions, "Accepted")
		}, "policy %s was not accepted", name)
	}
}

func TestGatesAreInjectedByNamespaceLabel(t *testing.T) {
	c := newClient(t)
	apply(t, c, "examples/inject-gates.yaml")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "gates-", Labels: map[string]string{"headstart.dev/gates": "images.config"}}}
	require.NoError(t, c.Create(t.Context(), ns))
	var pod *corev1.Pod
	tries := 0
	eventually(t, func() bool { // the policy takes a moment to be in force
		tries++
		pod = makePod(ns.Name, fmt.Sprintf("web-%d", tries), "headstart.dev/config").create(t, c)
		return len(pod.Spec.SchedulingGates) > 1
	}, "no gate was injected")
	require.ElementsMatch(t, []string{"headstart.dev/images", "headstart.dev/config"}, gatesOf(pod))
	require.Empty(t, gatesOf(makePod(namespace(t, c), "web").create(t, c)), "other namespaces are left alone")
	pause := makePod(ns.Name, "pause").label("headstart.dev/warm-pool", "web")
	require.Empty(t, gatesOf(pause.create(t, c)), "a warm pool's own pods wait for nothing")
}
