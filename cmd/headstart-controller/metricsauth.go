package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// reviewTimeout bounds both questions to the API server.
	reviewTimeout = 10 * time.Second
	// reviewKept is how long a token that was allowed is not asked about again: two scrapes.
	reviewKept = time.Minute
	// maxReviews bounds what is kept; more scrapers than that are asked about anew.
	maxReviews = 64
)

// metricsGuard lets only those read metrics whom the API server knows by their bearer token and who may get the path: the
// non-resource URL of a ClusterRole. It is what kube-apiserver does for /metrics of its own.
type metricsGuard struct {
	clients kubernetes.Interface
	log     logr.Logger
	next    http.Handler

	mu      sync.Mutex
	allowed map[[sha256.Size]byte]time.Time // until when
}

// guardMetrics has the form of controller-runtime's FilterProvider.
func guardMetrics(config *rest.Config, client *http.Client) (server.Filter, error) {
	clients, err := kubernetes.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("make client for who reads metrics: %w", err)
	}
	return func(log logr.Logger, next http.Handler) (http.Handler, error) {
		return &metricsGuard{clients: clients, log: log, next: next, allowed: map[[sha256.Size]byte]time.Time{}}, nil
	}, nil
}

// ServeHTTP answers those who may read.
func (g *metricsGuard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer || token == "" {
		http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
		return
	}
	key := sha256.Sum256([]byte(r.URL.Path + "\x00" + token))
	if !g.known(key) {
		status, err := g.review(r.Context(), token, r.URL.Path)
		if err != nil {
			g.log.Error(err, "cannot ask who reads metrics")
		}
		if status != http.StatusOK {
			http.Error(w, http.StatusText(status), status)
			return
		}
		g.keep(key)
	}
	g.next.ServeHTTP(w, r)
}

func (g *metricsGuard) known(key [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.allowed[key])
}

func (g *metricsGuard) keep(key [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.allowed) >= maxReviews {
		clear(g.allowed)
	}
	g.allowed[key] = time.Now().Add(reviewKept)
}

// review asks the API server whose token it is and whether he may get path.
func (g *metricsGuard) review(ctx context.Context, token, path string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	who, err := g.clients.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return http.StatusInternalServerError, fmt.Errorf("review token: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	user := who.Status.User
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for k, v := range user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	may, err := g.clients.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: "get"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return http.StatusInternalServerError, fmt.Errorf("review access of %q to %s: %w", user.Username, path, err)
	}
	if !may.Status.Allowed {
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}
