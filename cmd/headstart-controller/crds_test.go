package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// discoveryOf is an API server that serves these resources of our group after some requests, and before that not even
// the group.
func discoveryOf(t *testing.T, after int32, names ...string) *rest.Config {
	t.Helper()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/headstart.dev/v1alpha1" || asked.Add(1) <= after {
			http.NotFound(w, r)
			return
		}
		list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"}, GroupVersion: "headstart.dev/v1alpha1"}
		for _, name := range names {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name, Kind: name})
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(list); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func TestStartWaitsForCRDs(t *testing.T) {
	config := discoveryOf(t, 1, "gatepolicies", "prepullpolicies", "warmpools")
	require.NoError(t, awaitCRDs(t.Context(), config, logr.Discard(), time.Minute))
}

func TestStartNamesTheCRDsThatAreNotThere(t *testing.T) {
	for name, c := range map[string]struct {
		config *rest.Config
		want   string
	}{
		"one":  {discoveryOf(t, 0, "gatepolicies", "warmpools"), "not installed: prepullpolicies.headstart.dev: apply deploy/crd"},
		"none": {discoveryOf(t, 1<<30), "not installed: gatepolicies.headstart.dev, prepullpolicies.headstart.dev, warmpools.headstart.dev: "},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, awaitCRDs(t.Context(), c.config, logr.Discard(), 0), c.want)
		})
	}
}

func TestStartSaysThatTheAPIServerDoesNotAnswer(t *testing.T) {
	require.ErrorContains(t, awaitCRDs(t.Context(), &rest.Config{Host: "http://127.0.0.1:1"}, logr.Discard(), 0), "look for CRDs: ")
}
