package controller

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

func lifting(t *testing.T, change func(*decision)) decision {
	t.Helper()
	pod, err := gates.NewShapes().Pod(object("web", "x", gateA, gateB))
	require.NoError(t, err)
	d := decision{pod: pod, lift: []gateDecision{{policy: compile(t, gateA, v1alpha1.PlacementNone, references())}}}
	change(&d)
	return d
}

func TestEncodeLift(t *testing.T) {
	term := corev1.PreferredSchedulingTerm{Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}},
	}}}
	const preferred = `"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"preference":{"matchExpressions":[` +
		`{"key":"kubernetes.io/hostname","operator":"In","values":["n1"]}]}}]`
	cases := map[string]struct {
		change func(*decision)
		want   string
	}{
		"by name, with the UID and the resourceVersion": {
			func(*decision) {}, `{"metadata":{"uid":"uid-web","resourceVersion":"1"},"spec":{"schedulingGates":[{"$patch":"delete","name":"example.com/a"}]}}`,
		},
		"with the preference": {
			func(d *decision) { d.steer = &term },
			`{"metadata":{"uid":"uid-web","resourceVersion":"1"},"spec":{"schedulingGates":[{"$patch":"delete","name":"example.com/a"}],` +
				`"affinity":{"nodeAffinity":{` + preferred + `}}}}`,
		},
		"with the label that is required": {
			func(d *decision) { d.steer, d.require = &term, "headstart.dev/warm-0" },
			`{"metadata":{"uid":"uid-web","resourceVersion":"1"},"spec":{"schedulingGates":[{"$patch":"delete","name":"example.com/a"}],` +
				`"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[` +
				`{"key":"headstart.dev/warm-0","operator":"In","values":["true"]}]}]},` + preferred + `}}}}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := encodeLift(lifting(t, tc.change))
			require.NoError(t, err)
			require.JSONEq(t, tc.want, string(got))
		})
	}
}

func TestWhatBecomesOfAPatch(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	invalid := func(path string) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web", field.ErrorList{field.Invalid(field.NewPath("metadata", path), "x", "field is immutable")})
	}
	cases := map[string]struct {
		answer error
		want   result
		failed bool
	}{
		"done":                             {nil, lifted, false},
		"the pod is gone":                  {apierrors.NewNotFound(pods, "web"), gone, false},
		"another pod has its name":         {invalid("uid"), gone, false},
		"somebody wrote it in between":     {apierrors.NewConflict(pods, "web", errors.New("changed")), conflict, false},
		"something else is wrong with it":  {invalid("name"), failed, true},
		"the API server is busy":           {apierrors.NewTooManyRequests("busy", 1), failed, true},
		"it may have arrived, who knows":   {errors.New("connection reset"), failed, true},
		"an admission policy refuses that": {apierrors.NewForbidden(pods, "web", errors.New("no")), failed, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			scheme := metadatafake.NewTestScheme()
			require.NoError(t, metav1.AddMetaToScheme(scheme))
			client := metadatafake.NewSimpleMetadataClient(scheme)
			client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, &metav1.PartialObjectMetadata{}, tc.answer
			})
			got, err := lifter{client.Resource(corev1.SchemeGroupVersion.WithResource("pods"))}.lift(t.Context(), lifting(t, func(*decision) {}))
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.failed, err != nil, "%v", err)
		})
	}
}
