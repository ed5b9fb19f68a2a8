package gates_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// writes counts the mutating requests that go through its config.
type writes struct {
	config  *rest.Config
	mu      sync.Mutex
	seen    []string
	patches int // of pods, that the API server took
}

func countWrites(t testing.TB) *writes {
	t.Helper()
	w := &writes{config: fastConfig()}
	w.config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.Method != http.MethodGet {
				w.mu.Lock()
				w.seen = append(w.seen, request.Method+" "+request.URL.Path)
				w.mu.Unlock()
			}
			response, err := next.RoundTrip(request)
			if err == nil && request.Method == http.MethodPatch && strings.Contains(request.URL.Path, "/pods/") && response.StatusCode == http.StatusOK {
				w.mu.Lock()
				w.patches++
				w.mu.Unlock()
			}
			return response, err
		})
	})
	return w
}

func (w *writes) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

func (w *writes) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.seen)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// podPatches counts the patches of pods that the API server took; those that it refused because somebody else was first
// changed nothing.
func (w *writes) podPatches() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.patches
}
