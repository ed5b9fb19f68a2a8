package columns

import (
	"strings"
	"unicode/utf8"
)

// digestLength is how many hex digits tell images apart for a person, as in git and docker.
const digestLength = 12

// ShortDigest cuts the digest in a reference to an image to its first digits.
func ShortDigest(ref string) string {
	name, digest, found := strings.Cut(ref, "@")
	algorithm, hex, isDigest := strings.Cut(digest, ":")
	if !found || !isDigest || len(hex) <= digestLength {
		return ref
	}
	return name + "@" + algorithm + ":" + hex[:digestLength]
}

// CutImage shortens a reference to an image: first its digest, then the registry and the folders before the name, which
// images have in common.
func CutImage(ref string, width int) string {
	short := ShortDigest(ref)
	rest := short
	for utf8.RuneCountInString(short) > width {
		_, after, found := strings.Cut(rest, "/")
		if !found {
			break
		}
		rest = after
		short = ellipsis + "/" + rest
	}
	if utf8.RuneCountInString(short) <= width {
		return short
	}
	if width < 1 {
		return ""
	}
	runes := []rune(short)
	return ellipsis + string(runes[len(runes)-width+1:])
}
