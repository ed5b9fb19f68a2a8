// Package containerd puts images into containerd as the CRI would have pulled them, by the fastest way that the node
// allows. It is the only package that knows the containerd client. Start from New.
//
// An image is pulled by one of several engines (see engine); all of them leave the same state behind: the same
// snapshots, the same content, the same three image records. What the node can do is discovered, never assumed.
package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/registry"
)

// Defaults of Config.
const (
	DefaultAddress   = "/run/containerd/containerd.sock"
	DefaultNamespace = "k8s.io"
	// AutoSnapshotter asks the CRI which snapshotter it uses.
	AutoSnapshotter = "auto"
	// DefaultMinFreePercent is where an EKS node's kubelet begins to evict pods.
	// Source: amazon-eks-ami nodeadm/internal/kubelet/config.go@v20260724, nodefs.available.
	DefaultMinFreePercent = 10
)

// Config is what a Store needs. The zero value is a node's usual setting.
type Config struct {
	// Address of containerd's socket, DefaultAddress when empty.
	Address string
	// Namespace of images, DefaultNamespace when empty.
	Namespace string
	// Snapshotter that images are unpacked into, AutoSnapshotter when empty.
	Snapshotter string
	// Credentials for registries; nil is anonymous. See registry credentials in package credentials.
	Credentials func(ctx context.Context, image, host string, attempt int) (username, secret string, err error)
	// Rewrites fetch images from elsewhere and store them under the name that pods use. The first that fits counts.
	Rewrites []Rewrite
	// MaxConcurrentDownloads is how many ranges are fetched or in memory at once and ChunkSize their size in bytes; the
	// product bounds the memory of all pulls together. 0 chooses both: 16 of 8 MiB.
	MaxConcurrentDownloads int
	ChunkSize              int
	// Bandwidth caps what layers take from the network, in bytes a second; 0 is no cap.
	Bandwidth int64
	// MinFreeBytes and MinFreePercent are what a disk keeps free; the larger of both counts. All 0 keeps
	// DefaultMinFreePercent.
	MinFreeBytes   int64
	MinFreePercent int
	// PinOwner is who pins images, OwnerAgent when empty.
	PinOwner string
	// Engines are tried in this order; nil is all of them, fastest first.
	Engines []string
	// ConfigDump prints the config that containerd runs with, for what is done before it is up; nil is
	// `containerd config dump`.
	ConfigDump []string
	// Log gets what was discovered, once, and whatever needs a look.
	Log logr.Logger
}

// Rewrite replaces the beginning of a normalised image name: from docker.io/ to 1111.dkr.ecr.eu-west-1.amazonaws.com/hub/.
type Rewrite struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Store implements prepull.Store on a containerd. It connects at the first pull and again after containerd restarts.
// All methods are safe for concurrent use.
type Store struct {
	cfg     Config
	engines []engine
	holds   holds
	ledger  ledger
	told    sync.Map // why engines were passed over

	mu      sync.Mutex
	node    *node
	staging *staging // nil until a node can have one
	// registry serves all connections to containerd as long as hosts.toml lies in hostDirs.
	registry *registry.Client
	hostDirs []string
	proxies  string
	missed   time.Time // when containerd was first not up
}

var _ prepull.Store = (*Store)(nil)

// New checks the config and makes no call: containerd need not be there yet.
func New(cfg Config) (*Store, error) {
	cfg.setDefaults()
	cfg.Address = strings.TrimPrefix(cfg.Address, "unix://")
	if !strings.HasPrefix(cfg.Address, "/") {
		return nil, fmt.Errorf("containerd address %q: want the absolute path of its socket, such as %s", cfg.Address, DefaultAddress)
	}
	for _, r := range cfg.Rewrites {
		if r.From == "" || r.To == "" {
			return nil, fmt.Errorf("registry rewrite from %q to %q: both are needed, such as docker.io/ and registry.example/hub/", r.From, r.To)
		}
	}
	if cfg.MaxConcurrentDownloads < 0 || cfg.ChunkSize < 0 || (cfg.ChunkSize > 0 && cfg.ChunkSize < minChunk) {
		return nil, fmt.Errorf("%d concurrent downloads of %d bytes: want 0 or more of 0 (auto) or at least %d bytes",
			cfg.MaxConcurrentDownloads, cfg.ChunkSize, minChunk)
	}
	if !isOwner(cfg.PinOwner) {
		return nil, fmt.Errorf("pin owner %q: want %s or %s", cfg.PinOwner, OwnerAgent, OwnerCommand)
	}
	engines, err := chooseEngines(cfg)
	if err != nil {
		return nil, err
	}
	return &Store{cfg: cfg, engines: engines}, nil
}

// setDefaults fills what is left empty, but for the sizes: those are the registry client's to choose.
func (cfg *Config) setDefaults() {
	cfg.Address = cmp.Or(cfg.Address, DefaultAddress)
	cfg.Namespace = cmp.Or(cfg.Namespace, DefaultNamespace)
	cfg.Snapshotter = cmp.Or(cfg.Snapshotter, AutoSnapshotter)
	cfg.PinOwner = cmp.Or(cfg.PinOwner, OwnerAgent)
	if cfg.MinFreeBytes == 0 && cfg.MinFreePercent == 0 {
		cfg.MinFreePercent = DefaultMinFreePercent
	}
}

// chooseEngines returns the named engines, or all in the order of their speed.
func chooseEngines(cfg Config) ([]engine, error) {
	names := cfg.Engines
	if names == nil {
		names = []string{EngineLazy, EngineDirect, EngineClient, EngineCRI}
	}
	var engines []engine
	for _, name := range names {
		switch name {
		case EngineLazy:
			engines = append(engines, lazyEngine{criEngine{credentials: cfg.Credentials}})
		case EngineDirect:
			engines = append(engines, newDirectEngine(layer.Slots()))
		case EngineClient:
			engines = append(engines, clientEngine{})
		case EngineCRI:
			engines = append(engines, criEngine{credentials: cfg.Credentials})
		default:
			return nil, fmt.Errorf("engine %q: want %s, %s, %s or %s", name, EngineLazy, EngineDirect, EngineClient, EngineCRI)
		}
	}
	return engines, nil
}

// minChunk keeps a range's request from costing more than its bytes.
const minChunk = 64 << 10

// Close ends the connection. Pulls that run fail; layers that are finished stay for the next Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.node != nil {
		errs = append(errs, s.node.close())
	}
	if s.staging != nil {
		errs = append(errs, s.staging.close())
	}
	s.node, s.staging = nil, nil
	return errors.Join(errs...)
}

// Discovered returns what was found at containerd, and false while there is no connection.
func (s *Store) Discovered() (Discovery, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		return Discovery{}, false
	}
	return s.node.found, true
}

// Discover connects when it has not yet, and returns what the node can do.
func (s *Store) Discover(ctx context.Context) (Discovery, error) {
	n, err := s.connect(ctx)
	if err != nil {
		return Discovery{}, err
	}
	return n.found, nil
}

// Pull implements prepull.Store.
func (s *Store) Pull(ctx context.Context, img prepull.Image, report func(prepull.Progress)) (prepull.Result, error) {
	name, err := prepull.Normalize(img.Ref)
	if err != nil {
		return prepull.Result{}, prepull.Permanent(err)
	}
	began := time.Now()
	p := &pull{image: img, name: name, source: s.rewrite(name), progress: newProgress(report)}
	n, err := s.connectAhead(ctx, p)
	if err != nil {
		return prepull.Result{Progress: p.progress.snapshot()}, classify(err)
	}
	p.node = n
	p.progress.into(n.found)
	err = s.pull(n.context(ctx), p)
	if err == nil || prepull.IsPermanent(classify(err)) || ofContent(err) {
		n.forgetPartials(p) // of layers that another engine, or nobody, has brought to an end
	}
	if err != nil {
		s.forget(n, err)
		return prepull.Result{Progress: p.progress.snapshot()}, classify(fmt.Errorf("pull image %q: %w", name, err))
	}
	p.progress.stage("total", time.Since(began))
	result := p.progress.result()
	if len(p.lazy) > 0 {
		result.Lazy, result.Follow = true, p.follow
	}
	return result, nil
}

// passOver notes why an engine is not used. The journal hears of each reason once: it is one of the node, or of many images.
func (s *Store) passOver(p *pull, e engine, reason string) {
	if e.name() == EngineLazy && p.image.Mode != prepull.ModeLazy {
		return // nobody insisted
	}
	p.progress.passedOver(e.name(), reason)
	if _, told := s.told.LoadOrStore(e.name()+reason, struct{}{}); !told {
		s.cfg.Log.Info("engine is passed over", "image", p.name, "engine", e.name(), "reason", reason)
	}
}

// Release implements prepull.Store: it drops the pins that Pull set, and no others.
func (s *Store) Release(ctx context.Context, name string) error {
	name, err := prepull.Normalize(name)
	if err != nil {
		return nil //nolint:nilerr // what cannot be parsed was never pulled
	}
	n, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if err := n.unpin(n.context(ctx), name); err != nil {
		return fmt.Errorf("unpin image %q: %w", name, err)
	}
	return nil
}

// Sweep implements prepull.Store. It also clears what unfinished pulls have left for longer than a day.
func (s *Store) Sweep(ctx context.Context, pinned []string) error {
	n, err := s.connect(ctx)
	if err != nil {
		return err
	}
	ctx = n.context(ctx)
	errs := []error{n.sweepPins(ctx, pinned), n.sweepLeases(ctx)}
	if n.staging != nil {
		errs = append(errs, n.staging.sweep(leaseExpiry))
	}
	return errors.Join(errs...)
}

func (s *Store) rewrite(name string) string {
	for _, r := range s.cfg.Rewrites {
		if rest, fits := strings.CutPrefix(name, r.From); fits {
			return r.To + rest
		}
	}
	return name
}
