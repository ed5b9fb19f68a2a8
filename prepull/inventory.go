package prepull

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// MaxInventoryBytes bounds the headstart.dev/images annotation: a Node object is sent to every watcher.
const MaxInventoryBytes = 16 << 10

// digestPrefixLen is how many hex characters of a digest an inventory keeps. 16 hex characters are 64 bits: two of the
// thousands of images of a fleet meeting by chance has a probability under 1e-12.
const digestPrefixLen = 16

// Inventory is what a node publishes of its warm images in the annotation headstart.dev/images. Its JSON form is
// {"snapshotter":"overlayfs","runtime":"containerd 2.2.4","engines":["direct"],"warm":["<16 hex>=repo:tag", ...],"lazy":[...],"failed":[...],"more":N}; an image stands there once for
// each name that the CRI knows it by, in order of priority, most important first.
type Inventory struct {
	// Snapshotter is the one in which the images are unpacked; the CRI's own.
	Snapshotter string `json:"snapshotter,omitempty"`
	// Runtime is the container runtime with its version; Engines are the ways in which these images were pulled, sorted.
	// An image that was there already was not pulled.
	Runtime string   `json:"runtime,omitempty"`
	Engines []string `json:"engines,omitempty"`
	// Warm lists images that are present, unpacked and complete.
	Warm []InventoryImage `json:"warm,omitempty"`
	// Lazy lists images whose content still comes over the network when it is read.
	Lazy []InventoryImage `json:"lazy,omitempty"`
	// Failed names images whose pull was given up; what they are for is the sender's to know.
	Failed []string `json:"failed,omitempty"`
	// More counts the images that did not fit.
	More int `json:"more,omitempty"`
}

// InventoryImage is one image of an Inventory. Its text form is "<digest prefix>=<name>".
type InventoryImage struct {
	// Digest is the first 16 hex characters of the digest that the name had when it was pulled (index digest where
	// there is an index), without "sha256:".
	Digest string
	// Name is the normalised reference (docker.io/library/nginx:1.29), as the CRI stores it.
	Name string
}

// MarshalText writes the text form.
func (i InventoryImage) MarshalText() ([]byte, error) { return []byte(i.Digest + "=" + i.Name), nil }

// UnmarshalText reads the text form.
func (i *InventoryImage) UnmarshalText(text []byte) error {
	dgst, name, ok := strings.Cut(string(text), "=")
	if !ok || dgst == "" || name == "" {
		return fmt.Errorf("parse inventory image %q: want <digest prefix>=<name>", text)
	}
	i.Digest, i.Name = dgst, name
	return nil
}

// DigestPrefix shortens a digest ("sha256:4bcf...") to the form that an Inventory holds.
func DigestPrefix(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		hex = digest
	}
	return hex[:min(len(hex), digestPrefixLen)]
}

// Encode renders the inventory as JSON of at most MaxInventoryBytes. What does not fit is dropped from the end (failed
// images first, then lazy ones, then the least important warm ones) and counted in More.
func (inv Inventory) Encode() (string, error) {
	inv.Warm, inv.Lazy, inv.Failed = slices.Clone(inv.Warm), slices.Clone(inv.Lazy), slices.Clone(inv.Failed)
	for {
		out, err := json.Marshal(inv)
		if err != nil {
			return "", fmt.Errorf("encode inventory: %w", err)
		}
		excess := len(out) - MaxInventoryBytes
		if excess <= 0 {
			return string(out), nil
		}
		if len(inv.Warm)+len(inv.Lazy)+len(inv.Failed) == 0 {
			return "", fmt.Errorf("encode inventory: %d bytes without any image, at most %d are allowed", len(out), MaxInventoryBytes)
		}
		// Drop whole entries worth the excess at once: one at a time would be quadratic on a hostile list.
		for excess > 0 && len(inv.Failed) > 0 {
			last := len(inv.Failed) - 1
			excess -= len(inv.Failed[last]) + len(`"",`)
			inv.Failed = inv.Failed[:last]
			inv.More++
		}
		for excess > 0 && len(inv.Warm)+len(inv.Lazy) > 0 {
			last := &inv.Lazy
			if len(inv.Lazy) == 0 {
				last = &inv.Warm
			}
			dropped := (*last)[len(*last)-1]
			*last = (*last)[:len(*last)-1]
			inv.More++
			excess -= len(dropped.Digest) + len(dropped.Name) + len(`"=",`)
		}
	}
}

// DecodeInventory reads the annotation. It comes from a node and is therefore hostile: a text over MaxInventoryBytes or
// of another form is an error and nothing of it is used.
func DecodeInventory(text string) (Inventory, error) {
	var inv Inventory
	if len(text) > MaxInventoryBytes {
		return inv, fmt.Errorf("decode inventory: %d bytes, at most %d are allowed", len(text), MaxInventoryBytes)
	}
	if err := json.Unmarshal([]byte(text), &inv); err != nil {
		return Inventory{}, fmt.Errorf("decode inventory: %w", err)
	}
	return inv, nil
}
