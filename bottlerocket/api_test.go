package bottlerocket_test

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/bottlerocket"
)

// settingsAPI plays Bottlerocket's API: changes wait in a transaction until it is committed.
type settingsAPI struct {
	mu      sync.Mutex
	pending map[string]map[string]any
	live    map[string]any
	refuse  bool
}

func (a *settingsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tx := r.URL.Query().Get("tx")
	switch {
	case a.refuse:
		http.Error(w, "no such setting", http.StatusBadRequest)
	case r.Method == http.MethodPatch && r.URL.Path == "/settings":
		var settings map[string]any
		if err := json.NewDecoder(r.Body).Decode(&settings); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.pending[tx] = settings
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost && r.URL.Path == "/tx/commit_and_apply":
		a.live = a.pending[tx]
		delete(a.pending, tx)
	default:
		http.NotFound(w, r)
	}
}

func serve(t *testing.T, api *settingsAPI) bottlerocket.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "api.sock")
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: api}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return bottlerocket.Client{Socket: socket}
}

func TestDisableCommitsOneSetting(t *testing.T) {
	api := &settingsAPI{pending: map[string]map[string]any{"someone": {"motd": "x"}}}
	client := serve(t, api)
	require.NoError(t, client.Disable(t.Context(), "headstart"))
	require.Equal(t, map[string]any{"host-containers": map[string]any{"headstart": map[string]any{"enabled": false}}}, api.live)
	require.Contains(t, api.pending, "someone", "a change of somebody else stays pending")
}

func TestDisableSaysWhyNot(t *testing.T) {
	client := serve(t, &settingsAPI{refuse: true})
	require.ErrorContains(t, client.Disable(t.Context(), "headstart"), "no such setting")
	gone := bottlerocket.Client{Socket: filepath.Join(t.TempDir(), "none.sock")}
	require.ErrorContains(t, gone.Disable(t.Context(), "headstart"), "disable host container")
}
