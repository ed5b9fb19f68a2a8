package connection_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"headstart.dev/readiness/connection"
)

// seen is how requests reached a server.
type seen struct {
	mu     sync.Mutex
	protos map[string]string // by "watch" and "other"
	users  map[string]string
}

func serve(t *testing.T) (*rest.Config, *seen) {
	t.Helper()
	s := &seen{protos: map[string]string{}, users: map[string]string{}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := "other"
		if r.URL.Query().Has("watch") {
			kind = "watch"
		}
		s.mu.Lock()
		s.protos[kind], s.users[kind] = r.Proto, r.Header.Get("Authorization")+" as "+r.Header.Get("Impersonate-User")
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if kind == "other" {
			_, _ = w.Write([]byte(`{"kind":"NodeList","apiVersion":"v1","items":[]}`))
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return &rest.Config{
		Host: server.URL, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		Impersonate: rest.ImpersonationConfig{UserName: "ann"},
	}, s
}

func (s *seen) require(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(t, map[string]string{"watch": "HTTP/1.1", "other": "HTTP/2.0"}, s.protos)
	want := "Bearer secret as ann"
	require.Equal(t, map[string]string{"watch": want, "other": want}, s.users)
}

func TestWatchesOfEveryClientGoOverHTTP1(t *testing.T) {
	config, seen := serve(t)
	apart, err := connection.WatchesApart(config)
	require.NoError(t, err)
	// A second time changes nothing.
	apart, err = connection.WatchesApart(apart)
	require.NoError(t, err)

	typed, err := kubernetes.NewForConfig(apart)
	require.NoError(t, err)
	_, err = typed.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	w, err := typed.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	w.Stop()
	seen.require(t)

	clear(seen.protos)
	loose, err := dynamic.NewForConfig(apart)
	require.NoError(t, err)
	nodes := loose.Resource(corev1.SchemeGroupVersion.WithResource("nodes"))
	_, err = nodes.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	w, err = nodes.Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	w.Stop()
	seen.require(t)
}

func TestWrappersSeeWatchesToo(t *testing.T) {
	config, _ := serve(t)
	var urls []string
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			urls = append(urls, r.URL.Query().Get("watch"))
			return next.RoundTrip(r)
		})
	})
	apart, err := connection.WatchesApart(config)
	require.NoError(t, err)
	typed, err := kubernetes.NewForConfig(apart)
	require.NoError(t, err)
	w, err := typed.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	w.Stop()
	require.Equal(t, []string{"true"}, urls)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
