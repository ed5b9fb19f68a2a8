package prepull

import (
	"cmp"
	"fmt"
)

// Mode says whether containers may start from an image before all of it is on the node.
type Mode string

// The modes of an image.
const (
	// ModeEager brings the whole image. The empty Mode means the same.
	ModeEager Mode = "Eager"
	// ModeLazy mounts the image by its SOCI index: containers start at once, and content comes as it is read and in the
	// background. An image without an index (version 2), and one on a node whose CRI does not use the SOCI snapshotter, is
	// pulled whole; its status says why.
	ModeLazy Mode = "Lazy"
	// ModeAuto is ModeLazy where that is possible and ModeEager where it is not, which is then no fact worth telling.
	ModeAuto Mode = "Auto"
)

// ParseMode reads a mode; the empty text is ModeEager. The error says what there is.
func ParseMode(text string) (Mode, error) {
	switch m := Mode(text); m {
	case "":
		return ModeEager, nil
	case ModeEager, ModeLazy, ModeAuto:
		return m, nil
	}
	return "", fmt.Errorf("mode %q: want %s, %s or %s", text, ModeEager, ModeLazy, ModeAuto)
}

// Lazy says whether a mount by the image's index will do.
func (m Mode) Lazy() bool { return m == ModeLazy || m == ModeAuto }

// Stronger returns the mode that fulfils both wishes: who asks for the whole image gets it, whoever else is content with
// less; and a wish for a lazy mount is worth telling of.
func (m Mode) Stronger(other Mode) Mode {
	switch {
	case !m.Lazy() && !other.Lazy():
		return cmp.Or(m, other)
	case !m.Lazy(), other.Lazy() && m == ModeLazy:
		return m
	default:
		return other
	}
}
