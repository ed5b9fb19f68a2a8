package faultproxy

import (
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Fault is one way to misbehave. The zero value does nothing; several fields may be combined.
type Fault struct {
	// Match selects the requests; nil selects all. See Blobs, Manifests and Path.
	Match func(*http.Request) bool
	// Times is how many requests are hit before the fault clears itself; 0 means until cleared.
	Times int
	// Latency delays the answer.
	Latency time.Duration
	// Status, when not 0, is answered in place of the registry's answer, with Header (for example Retry-After).
	Status int
	Header http.Header
	// BytesPerSecond limits each matching response by itself, as a registry limits one connection. 0 is unlimited.
	BytesPerSecond int64
	// After says after how many body bytes Reset, Truncate, Hang and Corrupt happen.
	After int64
	// Reset ends the connection with a TCP reset.
	Reset bool
	// Truncate ends the connection in good order but before the promised length.
	Truncate bool
	// Hang stops sending and keeps the connection, until the client goes away.
	Hang bool
	// Corrupt inverts the bytes from After on; the length stays right.
	Corrupt bool
}

// Blobs matches requests for blob contents.
func Blobs(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// Manifests matches requests for manifests, HEAD included.
func Manifests(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// Path matches GET and HEAD requests whose path contains part, for example a repository or a digest.
func Path(part string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.Contains(r.URL.Path, part) }
}

type armed struct {
	fault Fault
	left  int // requests still to hit; -1 for no end
}

// Inject arms a fault and returns what disarms it. Of several that match a request, the first armed hits.
func (p *Proxy) Inject(fault Fault) (clearFault func()) {
	entry := &armed{fault: fault, left: fault.Times}
	if fault.Times == 0 {
		entry.left = -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, entry)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.faults = slices.DeleteFunc(p.faults, func(other *armed) bool { return other == entry })
	}
}

// take returns the fault that hits r, or one that does nothing.
func (p *Proxy) take(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, entry := range p.faults {
		if entry.left == 0 || (entry.fault.Match != nil && !entry.fault.Match(r)) {
			continue
		}
		if entry.left > 0 {
			entry.left--
		}
		return entry.fault
	}
	return Fault{}
}

// before does what happens before the registry is asked, and says whether it is to be asked at all.
func (f Fault) before(w http.ResponseWriter, r *http.Request) bool {
	if f.Latency > 0 {
		select {
		case <-time.After(f.Latency):
		case <-r.Context().Done():
			return false
		}
	}
	if f.Status == 0 {
		return true
	}
	maps.Copy(w.Header(), f.Header)
	http.Error(w, http.StatusText(f.Status), f.Status)
	return false
}

// breaks says whether the body does not arrive whole.
func (f Fault) breaks() bool { return f.Reset || f.Truncate || f.Hang }

// sender copies one body to the client, limited and broken as its fault wants.
type sender struct {
	w      http.ResponseWriter
	r      *http.Request
	fault  Fault
	limits []*rate.Limiter // nil entries do not limit
	sent   func(int64)
}

func (s *sender) copy(body io.Reader) {
	buffer := make([]byte, burst)
	var offset int64
	for {
		n, err := body.Read(buffer)
		piece := buffer[:n]
		broken := s.fault.breaks() && offset+int64(n) >= s.fault.After
		if broken {
			piece = piece[:s.fault.After-offset]
		}
		if s.fault.Corrupt {
			invert(piece, s.fault.After-offset)
		}
		if !s.send(piece) {
			return
		}
		offset += int64(len(piece))
		if broken {
			s.breakOff()
			return
		}
		if err != nil {
			return
		}
	}
}

// send writes one piece at the permitted speed and says whether the client is still there.
func (s *sender) send(piece []byte) bool {
	for _, limit := range s.limits {
		if limit != nil && limit.WaitN(s.r.Context(), len(piece)) != nil {
			return false
		}
	}
	n, err := s.w.Write(piece)
	s.sent(int64(n))
	return err == nil
}

// breakOff ends the response before its time.
func (s *sender) breakOff() {
	control := http.NewResponseController(s.w)
	_ = control.Flush() // the connection is about to be broken anyway
	if s.fault.Hang {
		<-s.r.Context().Done()
		return
	}
	conn, _, err := control.Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok && s.fault.Reset {
		_ = tcp.SetLinger(0) // a plain close breaks the body as well
	}
	_ = conn.Close()
}

// invert flips all bits of piece from index from on.
func invert(piece []byte, from int64) {
	for i := max(from, 0); i < int64(len(piece)); i++ {
		piece[i] = ^piece[i]
	}
}
