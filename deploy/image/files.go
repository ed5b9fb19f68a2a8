package image

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// file is one regular file of an image, root's.
type file struct {
	name    string // relative to /
	mode    int64
	content []byte
}

// rootCertificates are Mozilla's, at the place where Go and OpenSSL look: registries are asked over TLS, by us and by the
// kubelet's credential provider plugins that we run. Roots that Mozilla trusts with constraints are left out, because a
// file has no place for these.
func rootCertificates() (file, error) {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return file{}, err
		}
	}
	return file{"etc/ssl/certs/ca-certificates.crt", 0o644, out.Bytes()}, nil
}

// tarOf holds the files, by name, and the folders above them, all root's and of 1970.
func tarOf(files []file) ([]byte, error) {
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{}
	for _, f := range files {
		for _, dir := range parents(f.name) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Format: tar.FormatPAX}); err != nil {
				return nil, err
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// parents are the folders above name, uppermost first.
func parents(name string) []string {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return append(parents(dir), dir)
}
