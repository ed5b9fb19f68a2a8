package resolve_test

import (
	"net/http"
	"testing"

	"headstart.dev/prepull/controller/resolve"
)

// FuzzAnswers is of a registry that answers anything to every question.
func FuzzAnswers(f *testing.F) {
	var status int
	var contentType, challenge string
	var body []byte
	host := serve(f, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Www-Authenticate", challenge)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	const index = "application/vnd.oci.image.index.v1+json"
	f.Add(uint16(200), index, "", []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:00","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add(uint16(200), "application/vnd.oci.image.manifest.v1+json", "", []byte(`{"schemaVersion":2,"layers":[{"digest":"x","size":-1}]}`))
	f.Add(uint16(401), "", `Bearer realm="http://127.0.0.1:1/"`, []byte(`{"errors":[]}`))
	registry := resolve.New(resolve.Config{Loopback: true})
	f.Fuzz(func(t *testing.T, code uint16, kind, asks string, text []byte) {
		status, contentType, challenge, body = 200+int(code)%400, kind, asks, text
		_, _ = registry.Resolve(t.Context(), host+"/app:v1", "amd64")
	})
}
