package pull_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"headstart.dev/prepull/containerd"
)

type behaviour = func(s *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool

func isBlob(r *http.Request) bool     { return strings.Contains(r.URL.Path, "/blobs/") }
func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
func isRange(r *http.Request) bool    { return r.Header.Get("Range") != "" }

// answers gives a status to what matches, the first so many times; 0 is always.
func answers(match func(*http.Request) bool, code, times int, header ...string) behaviour {
	return func(s *shelf, w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !match(r) || (times > 0 && s.times("answers") > times) {
			return false
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return true
	}
}

// encodes sends what matches in an encoding that nobody has asked for.
func encodes(match func(*http.Request) bool, name string) behaviour {
	return func(_ *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool {
		if data == nil || !match(r) || r.Method == http.MethodHead {
			return false
		}
		var out bytes.Buffer
		var to io.WriteCloser
		switch name {
		case "gzip":
			to = gzip.NewWriter(&out)
		case "deflate":
			to, _ = flate.NewWriter(&out, 6)
		case "zstd":
			to, _ = zstd.NewWriter(&out)
		}
		_, _ = to.Write(data)
		_ = to.Close()
		w.Header().Set("Content-Encoding", name)
		_, _ = w.Write(out.Bytes())
		return true
	}
}

// whole sends no ranges, and the length only where it is told to.
func whole(length bool) behaviour {
	return func(_ *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool {
		if data == nil || !isBlob(r) {
			return false
		}
		if length {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		}
		w.WriteHeader(http.StatusOK)
		if !length {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = w.Write(data)
		return true
	}
}

// tokens asks for a token of a server of its own, which answers what first says the first time.
func tokens(first int) behaviour {
	return func(s *shelf, w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		if r.URL.Path == "/token" {
			if first != 0 && s.times("token") == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(first)
				return true
			}
			_, _ = io.WriteString(w, `{"token":"good","expires_in":300}`)
			return true
		}
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, s.server.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func basic(_ *shelf, w http.ResponseWriter, r *http.Request, _ []byte) bool {
	if user, secret, _ := r.BasicAuth(); user == "user" && secret == "secret" {
		return false
	}
	w.Header().Set("Www-Authenticate", `Basic realm="r"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// breaks ends the first bodies in the middle.
func breaks(times int) behaviour {
	return func(s *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool {
		if data == nil || !isBlob(r) || r.Method == http.MethodHead || isRange(r) && len(data) < 1000 || s.times("breaks") > times {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// flips serves blobs that are not what they are called.
func flips(_ *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool {
	if len(data) < 1000 || !isBlob(r) {
		return false
	}
	bad := bytes.Clone(data)
	bad[len(bad)/2] ^= 1
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
	return true
}

// mirrored is a hosts.toml with the second registry before the first.
func mirrored(mirror, origin behaviour) func(t *testing.T, s, second *shelf) string {
	return func(_ *testing.T, s, second *shelf) string {
		second.behave, s.behave = mirror, origin
		return fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", s.server.URL, second.server.URL)
	}
}

// elsewhere redirects blobs to the second registry, which behaves as it is told to.
func elsewhere(there behaviour) func(t *testing.T, s, second *shelf) string {
	return func(_ *testing.T, s, second *shelf) string {
		second.behave = there
		s.behave = func(_ *shelf, w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if !isBlob(r) {
				return false
			}
			http.Redirect(w, r, second.server.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return fmt.Sprintf("server = %q\n", s.server.URL)
	}
}

func everything(*http.Request) bool { return true }

func anyRange(r *http.Request) bool { return isRange(r) && isBlob(r) }

func slow(d time.Duration) behaviour {
	return func(_ *shelf, _ http.ResponseWriter, r *http.Request, _ []byte) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
		return false
	}
}

func registryRows() []parityRow {
	never := answers(everything, http.StatusNotFound, 0)
	denies := func(_ *shelf, w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusBadRequest)
		}
		return r.Header.Get("Authorization") != ""
	}
	return []parityRow{
		{name: "a plain registry", engine: containerd.EngineDirect},
		{name: "ranges are ignored", behave: whole(true), engine: containerd.EngineDirect},
		{name: "bodies without a length", behave: whole(false), engine: containerd.EngineDirect},
		{name: "ranges are answered 400", behave: answers(anyRange, http.StatusBadRequest, 0), engine: containerd.EngineDirect},
		{name: "ranges are answered 416", behave: answers(anyRange, http.StatusRequestedRangeNotSatisfiable, 0), engine: containerd.EngineDirect},
		{name: "ranges are answered 501", behave: answers(anyRange, http.StatusNotImplemented, 0), engine: containerd.EngineDirect},
		{name: "blobs are gzipped once more", behave: encodes(isBlob, "gzip"), engine: containerd.EngineDirect},
		{name: "blobs are deflated", behave: encodes(isBlob, "deflate"), engine: containerd.EngineDirect},
		{name: "blobs are compressed by zstd", behave: encodes(isBlob, "zstd"), engine: containerd.EngineDirect},
		{name: "everything is gzipped", behave: encodes(everything, "gzip")},
		{name: "HEAD is not allowed", behave: answers(func(r *http.Request) bool { return r.Method == http.MethodHead }, http.StatusMethodNotAllowed, 0)},
		{name: "manifests are answered 503 once", behave: answers(func(r *http.Request) bool { return isManifest(r) && r.Method == http.MethodGet }, http.StatusServiceUnavailable, 1)},
		{name: "blobs are answered 429 once", behave: answers(isBlob, http.StatusTooManyRequests, 1, "Retry-After", "1")},
		{name: "blobs are answered 500 once", behave: answers(isBlob, http.StatusInternalServerError, 1)},
		{name: "everything is answered 403", behave: answers(everything, http.StatusForbidden, 0)},
		{name: "everything is answered 404", behave: never},
		{name: "blobs are answered 404", behave: answers(isBlob, http.StatusNotFound, 0)},
		{name: "blobs are answered 410", behave: answers(isBlob, http.StatusGone, 0)},
		{name: "a token is wanted", behave: tokens(0), engine: containerd.EngineDirect},
		{name: "the token server is busy once", behave: tokens(http.StatusServiceUnavailable), differs: "an answer of a token server is not kept"},
		{name: "the token server says 429 once", behave: tokens(http.StatusTooManyRequests), differs: "an answer of a token server is not kept"},
		{name: "a password is wanted and known", behave: basic, login: true, engine: containerd.EngineDirect},
		{name: "a password is wanted and not known", behave: basic},
		{name: "a body breaks", behave: breaks(1)},
		{name: "blobs are corrupt", behave: flips},
		{name: "blobs lie in storage that takes no log-in", hosts: elsewhere(denies), engine: containerd.EngineDirect},
		{name: "the same after a password", hosts: func(t *testing.T, s, second *shelf) string {
			t.Helper()
			text := elsewhere(denies)(t, s, second)
			redirect := s.behave
			s.behave = func(s *shelf, w http.ResponseWriter, r *http.Request, data []byte) bool {
				return basic(s, w, r, data) || redirect(s, w, r, data)
			}
			return text
		}, login: true, differs: "what one host asked for does not go to another, be it at the same address"},
		{name: "blobs lie in a registry that wants a token", hosts: elsewhere(tokens(0)), engine: containerd.EngineDirect},
		{name: "a mirror without the image", hosts: mirrored(never, nil), engine: containerd.EngineDirect},
		{name: "a mirror without the blobs", hosts: mirrored(answers(isBlob, http.StatusNotFound, 0), nil), engine: containerd.EngineDirect},
		{name: "a mirror that fails", hosts: mirrored(answers(everything, http.StatusInternalServerError, 0), nil), engine: containerd.EngineDirect},
		{name: "a mirror that wants a password", hosts: mirrored(basic, nil), engine: containerd.EngineDirect},
		{name: "a slow mirror of what the origin lacks", hosts: mirrored(slow(1600*time.Millisecond), never)},
		{name: "a slow mirror of what the origin forbids", hosts: mirrored(slow(1600*time.Millisecond), answers(everything, http.StatusForbidden, 0))},
		{name: "a corrupt mirror", hosts: mirrored(flips, nil)},
		{name: "a mirror that is gone", hosts: func(_ *testing.T, s, second *shelf) string {
			url := second.server.URL
			second.server.Close()
			return fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", s.server.URL, url)
		}, engine: containerd.EngineDirect},
		{name: "a hosts file with an error", hosts: func(_ *testing.T, _, _ *shelf) string { return "server = \"http://nowhere\n" }},
		{name: "a hosts file that allows nothing", hosts: func(_ *testing.T, s, _ *shelf) string {
			return fmt.Sprintf("server = %[1]q\n[host.%[1]q]\ncapabilities = [\"push\"]\n", s.server.URL)
		}},
	}
}
