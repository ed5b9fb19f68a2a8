package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"headstart.dev/prepull/learn"
)

func TestStatusShowsWhatPoliciesLearned(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	window := learn.New(168 * time.Hour)
	window.Count(learn.Start{Image: "docker.io/library/web:v1", At: now, First: true})
	window.Measured("docker.io/library/web:v1", 300<<20)
	data, err := window.Encode(now)
	require.NoError(t, err)
	learned := func(name, kind string, data []byte) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name: learn.ConfigMapName(name), Namespace: "any", Labels: map[string]string{learn.Label: "true"},
				OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: name, Controller: new(true)}},
			},
			BinaryData: map[string][]byte{learn.Key: data},
		}
	}
	policy := func(name string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "headstart.dev/v1alpha1", "kind": "PrepullPolicy", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"learn": map[string]any{"top": int64(1), "window": "168h0m0s"}},
		}}
	}
	c := &cluster{
		core: fake.NewClientset(
			learned("web", "PrepullPolicy", data), learned("broken", "PrepullPolicy", []byte("no window")),
			learned("gone", "PrepullPolicy", data), learned("foreign", "Deployment", data)),
		dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme(), policy("web"), policy("broken")),
	}
	var out bytes.Buffer
	var warnings []string
	require.NoError(t, c.writeLearned(t.Context(), &out, func(text string) { warnings = append(warnings, text) }, now))
	require.Equal(t, `
PrepullPolicy web learned in 168h0m0s (* is prepulled, if it fits)
   IMAGE                     STARTS  PULLS  SIZE   SAVED
*  docker.io/library/web:v1  1       1      300Mi  300Mi
`, out.String())
	require.Len(t, warnings, 2)
	require.Contains(t, warnings[0], `what PrepullPolicy "broken" learned cannot be read`)
	require.Contains(t, warnings[1], `what PrepullPolicy "gone" learned is not shown`)
}
