package gates_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
)

func (b podBuilder) priorityClass(name string) podBuilder {
	b.pod.Spec.PriorityClassName = name
	return b
}

func (b podBuilder) on(selector map[string]string) podBuilder {
	b.pod.Spec.NodeSelector = selector
	return b
}

func bound(t testing.TB, c client.Client, pod *corev1.Pod) {
	t.Helper()
	eventually(t, func() bool { return read(t, c, pod).Spec.NodeName != "" }, "pod %s is not on a node", pod.Name)
}

// pausePriority makes the class of a warm pool's pods.
func pausePriority(t testing.TB, c client.Client) string {
	t.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gates-pause"}, Value: -1000}
	require.NoError(t, client.IgnoreAlreadyExists(c.Create(t.Context(), class)))
	return class.Name
}

func TestAPodPreemptsPausePodsThroughItsGate(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, image := namespace(t, c), "registry.example/preempt:v1"
	here := map[string]string{corev1.LabelHostname: "preempt-warm"}
	node(t, c, "preempt-warm", capacity("4"), warm(image))
	pause := pausePriority(t, c)
	var pool []*corev1.Pod
	for _, name := range []string{"pause-a", "pause-b", "pause-c", "pause-d"} {
		pool = append(pool, makePod(ns, name).on(here).priorityClass(pause).cpu("1").create(t, c))
	}
	for _, pod := range pool {
		bound(t, c, pod)
	}
	policy(t, c, "preempt", v1alpha1.GatePolicySpec{GateName: "example.com/preempt", Requires: images()})
	policy(t, c, "preempt-gang", v1alpha1.GatePolicySpec{GateName: "example.com/preempt-gang", Requires: []v1alpha1.Requirement{
		{Gang: &v1alpha1.GangRequirement{Label: "job-name", Size: 1}},
	}, OnDeadline: v1alpha1.OnDeadlineHold})
	pod := makePod(ns, "web", "example.com/preempt").on(here).image(image).cpu("1").create(t, c)
	bound(t, c, pod)
	// What is the gate's to decide: of pods that preempt on one node one after another the scheduler forgets some for minutes.
	awaitGates(t, c, makePod(ns, "train", "example.com/preempt-gang").on(here).label("job-name", "train").cpu("1").create(t, c))
}

func TestAPodThatNoNodeCanRunIsNotHidden(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/vain"
	policy(t, c, "vain", v1alpha1.GatePolicySpec{GateName: gate, Requires: images(), Placement: v1alpha1.PlacementRequired})
	hold := "example.com/vain-hold"
	policy(t, c, "vain-hold", v1alpha1.GatePolicySpec{GateName: hold, Requires: images(), Overflow: v1alpha1.OverflowHold})
	pod := makePod(ns, "web", gate).image("registry.example/vain:v1").create(t, c)
	require.Nil(t, awaitGates(t, c, pod).Spec.Affinity)
	require.Contains(t, awaitEvent(t, c, ns, "web", "GateLifted", corev1.EventTypeNormal).Message, "no node could run the pod now or soon")
	held := makePod(ns, "held", hold).image("registry.example/vain:v1").create(t, c)
	stayGated(t, c, held, hold)
}

func TestAPolicyThatIsNotInForceHoldsNobodyForEver(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/last-good"
	expression := func(text string) []v1alpha1.Requirement {
		return []v1alpha1.Requirement{{Object: &v1alpha1.ObjectRequirement{APIVersion: "v1", Kind: "ConfigMap", Name: "flags", Expression: text}}}
	}
	p := policy(t, c, "last-good", v1alpha1.GatePolicySpec{
		GateName: gate, Requires: expression("object.data.ready == 'true'"), Deadline: &metav1.Duration{Duration: time.Hour},
	})
	first := makePod(ns, "first", gate).create(t, c)
	stayGated(t, c, first, gate)
	require.NoError(t, c.Get(t.Context(), keyOf(p), p))
	p.Spec.Requires = expression("object.data +")
	require.NoError(t, c.Update(t.Context(), p))
	eventually(t, func() bool {
		accepted := meta.FindStatusCondition(readPolicy(t, c, "last-good").Status.Conditions, "Accepted")
		return accepted != nil && accepted.Reason == "Invalid" && strings.Contains(accepted.Message, "stays in force")
	}, "the policy does not say what is in force")
	require.EqualValues(t, 1, readPolicy(t, c, "last-good").Status.WaitingPods)
	flags := configMap(t, c, ns, "flags")
	stayGated(t, c, first, gate)
	flags.Data = map[string]string{"ready": "true"}
	require.NoError(t, c.Update(t.Context(), flags))
	awaitGates(t, c, first)

	// One that never could be carried out has its deadline all the same.
	policy(t, c, "never-good", v1alpha1.GatePolicySpec{
		GateName: "example.com/never-good", Requires: expression("object +"), Deadline: &metav1.Duration{Duration: 2 * time.Second},
	})
	awaitGates(t, c, makePod(ns, "second", "example.com/never-good").create(t, c))
}

func TestADeletedPolicyLetsItsPodsGo(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns := namespace(t, c)
	release := policy(t, c, "gone-release", v1alpha1.GatePolicySpec{GateName: "example.com/gone-release", Requires: references()})
	hold := policy(t, c, "gone-hold", v1alpha1.GatePolicySpec{
		GateName: "example.com/gone-hold", Requires: references(), OnDeadline: v1alpha1.OnDeadlineHold,
	})
	pod := makePod(ns, "web", "example.com/gone-release").envFrom("never").create(t, c)
	held := makePod(ns, "held", "example.com/gone-hold").envFrom("never").create(t, c)
	eventually(t, func() bool { return readPolicy(t, c, "gone-hold").Status.WaitingPods == 1 }, "the pod is not counted")
	require.NoError(t, c.Delete(t.Context(), release))
	require.NoError(t, c.Delete(t.Context(), hold))
	awaitGates(t, c, pod)
	eventually(t, func() bool {
		var list corev1.EventList
		require.NoError(t, c.List(t.Context(), &list, client.InNamespace(ns)))
		for _, event := range list.Items {
			if event.InvolvedObject.Name == "held" && strings.Contains(event.Message, "gone-hold, which said onDeadline: Hold, was deleted") {
				return true
			}
		}
		return false
	}, "nobody says who holds the pod")
	require.Equal(t, []string{"example.com/gone-hold"}, gatesOf(read(t, c, held)))
}

func TestWhileAQueueHoldsAPodTheTimeIsTheQueues(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate, queue, image := namespace(t, c), "example.com/queued", "queue.example/admission", "registry.example/queued:v1"
	policy(t, c, "queued", v1alpha1.GatePolicySpec{GateName: gate, Requires: images(), Deadline: &metav1.Duration{Duration: time.Second}})
	node(t, c, "queued-warm", capacity("4"), warm("registry.example/other:v1"))
	pod := makePod(ns, "web", gate, queue).image(image).create(t, c)
	ready := makePod(ns, "ready", gate, queue).image("registry.example/other:v1").create(t, c)
	awaitGates(t, c, ready, queue)
	end := time.Now().Add(3 * time.Second)
	eventually(t, func() bool { return time.Now().After(end) }, "time stands still")
	require.Equal(t, []string{gate, queue}, gatesOf(read(t, c, pod)), "its deadline is over, and the queue holds it")
	setWarm(t, c, "queued-warm", warm(image))
	awaitGates(t, c, pod, queue)
	for _, name := range []string{"web", "ready"} {
		pod.Name = name
		preferred := read(t, c, pod).Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		require.Equal(t, []string{"queued-warm"}, preferred[0].Preference.MatchExpressions[0].Values, "steered while a gate lets its affinity be written")
	}
}

func TestKeysAndPullSecretsThatPodsNeed(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns, gate := namespace(t, c), "example.com/keys"
	policy(t, c, "keys", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})
	account := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "robot"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "not-there"}},
	}
	require.NoError(t, c.Create(t.Context(), account))
	// The first thing that a pod waits for is the controller's own look at nodes and pods.
	awaitGates(t, c, makePod(ns, "first", gate).create(t, c))
	builder := makePod(ns, "web", gate)
	builder.pod.Spec.ServiceAccountName, builder.pod.Spec.ImagePullSecrets = "robot", account.ImagePullSecrets
	builder.pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "token"}, Key: "second"},
	}}}
	pod := builder.create(t, c)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "token"}, StringData: map[string]string{"first": "x"}}
	require.NoError(t, c.Create(t.Context(), secret))
	require.Contains(t, awaitEvent(t, c, ns, "web", "GateWaiting", corev1.EventTypeNormal).Message, "token")
	stayGated(t, c, pod, gate)
	secret.StringData = map[string]string{"second": "y"}
	require.NoError(t, c.Update(t.Context(), secret))
	awaitGates(t, c, pod)
}

func TestDeadlinesRunWhileBoundPodsCannotBeListed(t *testing.T) {
	c := newClient(t)
	cfg := fastConfig()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if strings.Contains(request.URL.RawQuery, "nodeName%21%3D") {
				return nil, errors.Join(errors.New("too many requests"), closeBody(request.Body))
			}
			return next.RoundTrip(request)
		})
	})
	startController(t, cfg)
	ns, gate := namespace(t, c), "example.com/blind"
	policy(t, c, "blind", v1alpha1.GatePolicySpec{GateName: gate, Requires: images(), Deadline: &metav1.Duration{Duration: 2 * time.Second}})
	node(t, c, "blind-node", capacity("4"), warm("registry.example/other:v1"))
	pod := makePod(ns, "web", gate).image("registry.example/blind:v1").create(t, c)
	awaitGates(t, c, pod)
	eventually(t, func() bool {
		is := meta.FindStatusCondition(readPolicy(t, c, "blind").Status.Conditions, "Satisfiable")
		return is != nil && is.Reason == "InputMissing" && strings.Contains(is.Message, "too many requests")
	}, "the policy does not say what is missing")
}

func closeBody(body io.ReadCloser) error {
	if body == nil {
		return nil
	}
	return body.Close()
}

func TestWhatTheControllerMayNotDoIsTold(t *testing.T) {
	c := newClient(t)
	asDeployed(t, c)
	robot := plane.ConfigFor(controllerUser, controllerGroup)
	robot.QPS = -1
	startController(t, robot)
	ns, gate := namespace(t, c), "example.com/refused"
	policy(t, c, "unreadable", v1alpha1.GatePolicySpec{GateName: "example.com/unreadable", Requires: []v1alpha1.Requirement{
		{Object: &v1alpha1.ObjectRequirement{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "web"}},
	}})
	require.NoError(t, c.Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}},
	}))
	makePod(ns, "blind", "example.com/unreadable").create(t, c)
	require.Contains(t, awaitEvent(t, c, ns, "blind", "GateWaiting", corev1.EventTypeNormal).Message, "cannot be read")
	reason := func(name string) string {
		if is := meta.FindStatusCondition(readPolicy(t, c, name).Status.Conditions, "Satisfiable"); is != nil {
			return is.Reason
		}
		return ""
	}
	eventually(t, func() bool { return reason("unreadable") == "CannotRead" }, "the policy does not say so")

	fail := admissionv1.Fail
	guard := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "gates-refuse"}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: &fail,
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}}},
		Validations: []admissionv1.Validation{{Expression: "object.metadata.name != 'refused'", Message: "not this pod"}},
	}}
	require.NoError(t, c.Create(t.Context(), guard))
	t.Cleanup(func() { require.NoError(t, c.Delete(afterwards(t), guard)) })
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "gates-refuse"}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: guard.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	require.NoError(t, c.Create(t.Context(), binding))
	t.Cleanup(func() { require.NoError(t, c.Delete(afterwards(t), binding)) })
	pod := makePod(ns, "refused", "other.example/hold", gate).create(t, c)
	eventually(t, func() bool { // the guard takes a moment to be in force
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`))
		return c.Patch(t.Context(), pod.DeepCopy(), patch, client.DryRunAll) != nil
	}, "the guard is not in force")
	policy(t, c, "refused", v1alpha1.GatePolicySpec{GateName: gate, Requires: references()})
	require.Contains(t, awaitEvent(t, c, ns, "refused", "GateLiftRefused", corev1.EventTypeWarning).Message, "not this pod")
	eventually(t, func() bool { return reason("refused") == "LiftRefused" }, "the policy does not say so")
}

func TestAGangSaysItsSize(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	ns := namespace(t, c)
	node(t, c, "sized", capacity("16"))
	sized := func(name string, gang v1alpha1.GangRequirement) string {
		gate := "example.com/" + name
		policy(t, c, name, v1alpha1.GatePolicySpec{GateName: gate, Requires: []v1alpha1.Requirement{{Gang: &gang}}})
		return gate
	}
	parallelism := int32(2)
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "train"}, Spec: batchv1.JobSpec{
		Parallelism: &parallelism, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: appImage}},
		}},
	}}
	require.NoError(t, c.Create(t.Context(), job))
	byLabel := sized("size-label", v1alpha1.GangRequirement{Label: "job", SizeFrom: v1alpha1.SizeFromLabel, SizeKey: "size"})
	byAnnotation := sized("size-annotation", v1alpha1.GangRequirement{Label: "job", SizeFrom: v1alpha1.SizeFromAnnotation})
	byOwner := sized("size-owner", v1alpha1.GangRequirement{SizeFrom: v1alpha1.SizeFromOwner})
	for _, gate := range []string{byLabel, byAnnotation, byOwner} {
		member := func(name string) *corev1.Pod {
			b := makePod(ns, strings.TrimPrefix(gate, "example.com/")+name, gate).label("job", gate[len("example.com/"):]).label("size", "2")
			b.pod.Annotations = map[string]string{v1alpha1.DefaultSizeKey: "2"}
			if gate == byOwner {
				b.pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}
			}
			return b.create(t, c)
		}
		first := member("-a")
		stayGated(t, c, first, gate)
		second := member("-b")
		awaitGates(t, c, first)
		awaitGates(t, c, second)
	}
	err := c.Create(t.Context(), &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: "sizeless"}, Spec: v1alpha1.GatePolicySpec{
		GateName: "example.com/sizeless", Requires: []v1alpha1.Requirement{{Gang: &v1alpha1.GangRequirement{Label: "job"}}},
	}})
	require.ErrorContains(t, err, "sizeFrom: Label, Annotation, Owner or PodGroup")
}
