package image

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sbomType is the media type of an SPDX document in JSON.
const sbomType types.MediaType = "application/spdx+json"

// The parts of SPDX 2.3 that an image of one Go binary needs. Source: https://spdx.github.io/spdx-spec/v2.3/.
type (
	spdxDocument struct {
		SPDXVersion       string             `json:"spdxVersion"`
		DataLicense       string             `json:"dataLicense"`
		SPDXID            string             `json:"SPDXID"`
		Name              string             `json:"name"`
		DocumentNamespace string             `json:"documentNamespace"`
		CreationInfo      spdxCreation       `json:"creationInfo"`
		Packages          []spdxPackage      `json:"packages"`
		Relationships     []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		SPDXID           string         `json:"SPDXID"`
		Name             string         `json:"name"`
		VersionInfo      string         `json:"versionInfo"`
		DownloadLocation string         `json:"downloadLocation"`
		FilesAnalyzed    bool           `json:"filesAnalyzed"`
		LicenseConcluded string         `json:"licenseConcluded"`
		LicenseDeclared  string         `json:"licenseDeclared"`
		CopyrightText    string         `json:"copyrightText"`
		Checksums        []spdxChecksum `json:"checksums,omitempty"`
		ExternalRefs     []spdxRef      `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm     string `json:"algorithm"`
		ChecksumValue string `json:"checksumValue"`
	}
	spdxRef struct {
		ReferenceCategory string `json:"referenceCategory"`
		ReferenceType     string `json:"referenceType"`
		ReferenceLocator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		SPDXElementID      string `json:"spdxElementId"`
		RelationshipType   string `json:"relationshipType"`
		RelatedSPDXElement string `json:"relatedSpdxElement"`
	}
)

// describe returns an OCI artifact that holds the SBOM and refers to the image.
func describe(spec Spec, options Options, img v1.Image, binary []byte, libcVersion string) (v1.Image, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read build info: %w", err)
	}
	sum := sha256.Sum256(binary)
	text, err := json.Marshal(document(spec, options, info, hex.EncodeToString(sum[:]), libcVersion))
	if err != nil {
		return nil, fmt.Errorf("write SBOM: %w", err)
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), sbomType)
	artifact, err = mutate.Append(artifact, mutate.Addendum{Layer: static.NewLayer(text, sbomType), MediaType: sbomType})
	if err != nil {
		return nil, err
	}
	subject, err := partial.Descriptor(img)
	if err != nil {
		return nil, err
	}
	referring, ok := mutate.Subject(artifact, *subject).(v1.Image)
	if !ok {
		return nil, fmt.Errorf("refer to %s: no image", subject.Digest)
	}
	return referring, nil
}

func document(spec Spec, options Options, info *buildinfo.BuildInfo, sum, libcVersion string) spdxDocument {
	const root = "SPDXRef-Binary"
	doc := spdxDocument{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: spec.Command,
		DocumentNamespace: "https://headstart.dev/sbom/" + spec.Command + "/" + sum,
		// A time of creation would make two builds differ.
		CreationInfo:  spdxCreation{Created: "1970-01-01T00:00:00Z", Creators: []string{"Tool: headstart.dev/deploy/image"}},
		Packages:      []spdxPackage{goPackage(root, "headstart.dev", options.Version)},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", root}},
	}
	doc.Packages[0].Checksums = []spdxChecksum{{"SHA256", sum}}
	add := func(id, name, version string) {
		doc.Packages = append(doc.Packages, goPackage(id, name, version))
		doc.Relationships = append(doc.Relationships, spdxRelationship{root, "DEPENDS_ON", id})
	}
	add("SPDXRef-Go", "stdlib", info.GoVersion)
	for i, dep := range info.Deps {
		module := replaced(dep)
		add(fmt.Sprintf("SPDXRef-Module-%d", i), module.Path, module.Version)
	}
	// What lies in the image beside the binary.
	doc.Packages = append(doc.Packages, goPackage("SPDXRef-Roots", rootsModule, rootsVersion()))
	doc.Relationships = append(doc.Relationships, spdxRelationship{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Roots"})
	if libcVersion != "" {
		libc := goPackage("SPDXRef-LibC", "glibc", libcVersion)
		libc.ExternalRefs[0].ReferenceLocator = "pkg:generic/glibc@" + libcVersion
		doc.Packages = append(doc.Packages, libc)
		doc.Relationships = append(doc.Relationships, spdxRelationship{root, "DYNAMIC_LINK", "SPDXRef-LibC"})
	}
	return doc
}

const rootsModule = "golang.org/x/crypto/x509roots/fallback"

// rootsVersion is that of the root certificates built into this process.
func rootsVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == rootsModule {
				return replaced(dep).Version
			}
		}
	}
	return "unknown"
}

func replaced(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

func goPackage(id, name, version string) spdxPackage {
	return spdxPackage{
		SPDXID: id, Name: name, VersionInfo: version, DownloadLocation: "NOASSERTION",
		LicenseConcluded: "NOASSERTION", LicenseDeclared: "NOASSERTION", CopyrightText: "NOASSERTION",
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + name + "@" + version}},
	}
}
