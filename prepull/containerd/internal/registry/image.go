package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxIndexDepth bounds indexes of indexes. A digest cannot name itself, so a true cycle needs a hash collision; a long
// chain of indexes needs none.
const maxIndexDepth = 4

// maxLayers is what overlayfs can mount: more lower directories than that and no container starts.
const maxLayers = 500

// ErrUnsupported: the image is of a form that this client does not read, for example an encrypted one.
var ErrUnsupported = errors.New("not supported")

// Image is a resolved image: everything but its layers.
type Image struct {
	// Target is what the name stands for: an index, or a manifest where there is none.
	Target ocispec.Descriptor
	// Manifest is the one for this platform, and Config its config blob.
	Manifest ocispec.Descriptor
	Config   ocispec.Descriptor
	// Layers are in the order in which they are applied; DiffIDs belong to them one by one.
	Layers  []ocispec.Descriptor
	DiffIDs []digest.Digest
	// Blobs are the raw bytes of Target, the manifests on the way, and Config, in that order.
	Blobs []Blob
	// Annotations of the manifest.
	Annotations map[string]string
}

// Blob is a small blob with its descriptor.
type Blob struct {
	Desc ocispec.Descriptor
	Data []byte
}

// TotalBytes is the compressed size of all layers.
func (i *Image) TotalBytes() int64 {
	var total int64
	for _, l := range i.Layers {
		total += l.Size
	}
	return total
}

// Resolve fetches what a normalised name stands for on a platform.
func (c *Client) Resolve(ctx context.Context, name string, platform platforms.MatchComparer) (*Image, error) {
	repo, err := c.Repository(ctx, name)
	if err != nil {
		return nil, err
	}
	spec, err := reference.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("parse image %q: %w", name, err)
	}
	object := spec.Object
	if dgst := spec.Digest(); dgst != "" {
		object = dgst.String()
	}
	desc, body, err := repo.Manifest(ctx, object)
	if err != nil {
		return nil, err
	}
	image := &Image{}
	if desc, body, err = image.descend(ctx, repo, desc, body, platform); err != nil {
		return nil, fmt.Errorf("read the manifest of %s: %w", name, err)
	}
	if err := image.readManifest(desc, body); err != nil {
		return nil, fmt.Errorf("read the manifest %s of %s: %w", desc.Digest, name, err)
	}
	config, err := repo.Blob(ctx, image.Config, MaxConfigBytes)
	if err != nil {
		return nil, err
	}
	image.Blobs = append(image.Blobs, Blob{Desc: image.Config, Data: config})
	if err := image.readConfig(config, desc, platform); err != nil {
		return nil, fmt.Errorf("read the config %s of %s: %w", image.Config.Digest, name, err)
	}
	return image, nil
}

// descend goes from what a name stands for through indexes to the platform's manifest.
func (i *Image) descend(
	ctx context.Context, repo *Repository, desc ocispec.Descriptor, body []byte, platform platforms.MatchComparer,
) (ocispec.Descriptor, []byte, error) {
	for depth := 0; ; depth++ {
		var err error
		if desc.MediaType, err = documentType(desc, body); err != nil {
			return desc, nil, fmt.Errorf("%s: %w", desc.Digest, err)
		}
		if depth == 0 {
			i.Target = ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
		}
		i.Blobs = append(i.Blobs, Blob{Desc: desc, Data: body})
		if !images.IsIndexType(desc.MediaType) {
			return desc, body, nil
		}
		if depth == maxIndexDepth {
			return desc, nil, fmt.Errorf("%s: indexes nest deeper than %d: %w", desc.Digest, maxIndexDepth, ErrRefused)
		}
		next, err := choose(body, platform)
		if err != nil {
			return desc, nil, fmt.Errorf("%s: %w", desc.Digest, err)
		}
		if desc, body, err = repo.Manifest(ctx, next.Digest.String()); err != nil {
			return desc, nil, err
		}
		if desc.Size != next.Size {
			return desc, nil, fmt.Errorf("%s has %d bytes, its index says %d: %w", desc.Digest, desc.Size, next.Size, ErrRefused)
		}
		desc.MediaType, desc.Platform = next.MediaType, next.Platform
	}
}

// documentType trusts the document's own mediaType over the server's header, as long as it is one that we read.
func documentType(desc ocispec.Descriptor, body []byte) (string, error) {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", fmt.Errorf("parse the document: %w: %w", err, ErrRefused)
	}
	if doc.FSLayers != nil {
		return "", fmt.Errorf("docker schema 1 is too old: rebuild the image: %w", ErrUnsupported)
	}
	if doc.Manifests != nil && doc.Layers != nil {
		return "", fmt.Errorf("a document cannot be index and manifest at once: %w", ErrRefused)
	}
	kind := desc.MediaType
	if doc.MediaType != "" {
		kind = doc.MediaType
	}
	switch {
	case doc.Manifests != nil && images.IsIndexType(kind), doc.Layers != nil && images.IsManifestType(kind):
		return kind, nil
	case doc.Manifests != nil && doc.MediaType == "":
		return ocispec.MediaTypeImageIndex, nil
	case doc.Layers != nil && doc.MediaType == "":
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("media type %q is no image: %w", kind, ErrUnsupported)
}

// choose picks the manifest for the platform, as containerd does: the best match, of equals the first.
func choose(body []byte, platform platforms.MatchComparer) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("parse the index: %w: %w", err, ErrRefused)
	}
	var fits []ocispec.Descriptor
	for _, m := range index.Manifests {
		known := images.IsManifestType(m.MediaType) || images.IsIndexType(m.MediaType)
		if known && m.Digest.Validate() == nil && (m.Platform == nil || platform.Match(platforms.Normalize(*m.Platform))) {
			fits = append(fits, m)
		}
	}
	if len(fits) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("the index has no image for %s: %w", platforms.Format(platforms.DefaultSpec()), ErrNotFound)
	}
	slices.SortStableFunc(fits, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil && b.Platform == nil:
			return 0
		case a.Platform == nil:
			return 1
		case b.Platform == nil:
			return -1
		case platform.Less(*a.Platform, *b.Platform):
			return -1
		case platform.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fits[0], nil
}

func (i *Image) readManifest(desc ocispec.Descriptor, body []byte) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("parse: %w: %w", err, ErrRefused)
	}
	i.Manifest, i.Config, i.Layers, i.Annotations = desc, m.Config, m.Layers, m.Annotations
	if !images.IsConfigType(m.Config.MediaType) {
		return fmt.Errorf("config of type %q is no container image: %w", m.Config.MediaType, ErrUnsupported)
	}
	if len(m.Layers) > maxLayers {
		return fmt.Errorf("%d layers, at most %d can be mounted: %w", len(m.Layers), maxLayers, ErrRefused)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("digest %q: %w: %w", d.Digest, err, ErrRefused)
		}
		if d.Size < 0 {
			return fmt.Errorf("size %d of %s: %w", d.Size, d.Digest, ErrRefused)
		}
	}
	return nil
}

// readConfig reads the config of the manifest that desc stands for.
func (i *Image) readConfig(body []byte, desc ocispec.Descriptor, platform platforms.MatchComparer) error {
	var config struct {
		ocispec.Platform
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(body, &config); err != nil {
		return fmt.Errorf("parse: %w: %w", err, ErrRefused)
	}
	if desc.Digest != i.Target.Digest && desc.Platform == nil && !platform.Match(platforms.Normalize(config.Platform)) {
		// containerd looks at this child of the index, as we do, and at no other.
		return fmt.Errorf("the index names no platform for it, and it is for %s: %w", platforms.Format(config.Platform), ErrUnsupported)
	}
	if len(config.RootFS.DiffIDs) != len(i.Layers) {
		return fmt.Errorf("%d diff_ids for %d layers: %w", len(config.RootFS.DiffIDs), len(i.Layers), ErrRefused)
	}
	for _, id := range config.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return fmt.Errorf("diff_id %q: %w: %w", id, err, ErrRefused)
		}
	}
	i.DiffIDs = config.RootFS.DiffIDs
	return nil
}
