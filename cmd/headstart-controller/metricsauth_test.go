package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// reviews is an API server that knows the tokens "reader" and "other", of which the first may read /metrics.
func reviews(asked *int, fails *error) *fake.Clientset {
	clients := fake.NewClientset()
	clients.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		*asked++
		review, ok := created(action).(*authenticationv1.TokenReview)
		if !ok {
			return false, nil, nil
		}
		review.Status.Authenticated = review.Spec.Token == "reader" || review.Spec.Token == "other"
		review.Status.User.Username = review.Spec.Token
		return true, review, *fails
	})
	clients.PrependReactor("create", "subjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review, ok := created(action).(*authorizationv1.SubjectAccessReview)
		if !ok {
			return false, nil, nil
		}
		review.Status.Allowed = review.Spec.User == "reader" && review.Spec.NonResourceAttributes.Path == "/metrics" && review.Spec.NonResourceAttributes.Verb == "get"
		return true, review, nil
	})
	return clients
}

func created(action clienttesting.Action) runtime.Object {
	if create, ok := action.(clienttesting.CreateAction); ok {
		return create.GetObject()
	}
	return nil
}

func TestMetricsAreForThoseWhoMayReadThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, fails := 0, error(nil)
		guard := &metricsGuard{
			clients: reviews(&asked, &fails), log: logr.Discard(), allowed: map[[32]byte]time.Time{},
			next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		}
		get := func(authorization, path string) int {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
			r.Header.Set("Authorization", authorization)
			w := httptest.NewRecorder()
			guard.ServeHTTP(w, r)
			return w.Code
		}
		require.Equal(t, http.StatusUnauthorized, get("", "/metrics"))
		require.Equal(t, http.StatusUnauthorized, get("Basic reader", "/metrics"))
		require.Zero(t, asked)
		require.Equal(t, http.StatusUnauthorized, get("Bearer nobody", "/metrics"))
		require.Equal(t, http.StatusForbidden, get("Bearer other", "/metrics"))
		require.Equal(t, http.StatusForbidden, get("Bearer reader", "/debug"))
		require.Equal(t, http.StatusOK, get("Bearer reader", "/metrics"))
		require.Equal(t, 4, asked)
		require.Equal(t, http.StatusOK, get("Bearer reader", "/metrics"))
		require.Equal(t, 4, asked, "it is known for a while")

		<-time.After(reviewKept)
		fails = errors.New("the API server is away")
		require.Equal(t, http.StatusInternalServerError, get("Bearer reader", "/metrics"))
	})
}
