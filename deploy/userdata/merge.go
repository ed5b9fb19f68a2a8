package userdata

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The media types of parts. Source: awslabs/amazon-eks-ami nodeadm/internal/configprovider/mime.go@v20251108.
const (
	nodeConfigType  = "application/node.eks.aws"
	shellType       = "text/x-shellscript"
	cloudConfigType = "text/cloud-config"
)

// marker is in every script of ours, so that a second merge replaces the first.
const marker = `# Headstart, written by "kubectl headstart userdata".`

// mimePart is one part of an archive, its header as lines.
type mimePart struct{ header, body string }

// mediaType is the part's, without parameters.
func (p mimePart) mediaType() string {
	for line := range strings.Lines(p.header) {
		if value, ok := strings.CutPrefix(line, "Content-Type:"); ok {
			mediaType, _, _ := mime.ParseMediaType(strings.TrimSpace(value))
			return mediaType
		}
	}
	return ""
}

// earlierParts are the parts of userData that is there already, but for our own. What is no archive becomes one part.
func earlierParts(text []byte) ([]mimePart, error) {
	trimmed := strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))
	whole := func(mediaType string) []mimePart {
		return []mimePart{{header: "Content-Type: " + mediaType + "; charset=\"utf-8\"\n", body: trimmed + "\n"}}
	}
	switch {
	case trimmed == "":
		return nil, nil
	case strings.HasPrefix(trimmed, "#!"):
		return withoutOurs(whole(shellType)), nil
	case strings.HasPrefix(trimmed, "#cloud-config"):
		return whole(cloudConfigType), nil
	case strings.HasPrefix(strings.ToLower(trimmed), "mime-version:"), strings.HasPrefix(strings.ToLower(trimmed), "content-type:"):
		parts, err := readParts(trimmed + "\n\n")
		return withoutOurs(parts), err
	}
	var object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal([]byte(trimmed), &object); err == nil && object.Kind == "NodeConfig" && strings.HasPrefix(object.APIVersion, "node.eks.aws/") {
		return []mimePart{{header: "Content-Type: " + nodeConfigType + "\n", body: trimmed + "\n"}}, nil
	}
	return nil, errors.New("merge userData: it is neither MIME multipart nor a shell script (#!), a NodeConfig or a cloud-config (#cloud-config): " +
		"decode it first where it is base64 or compressed")
}

// withoutOurs drops what an earlier merge wrote: the script, and the NodeConfig that came with it.
func withoutOurs(parts []mimePart) []mimePart {
	var out []mimePart
	for _, part := range parts {
		if strings.Contains(part.body, marker) || strings.HasPrefix(part.body, nodeConfigMarker) {
			continue
		}
		out = append(out, part)
	}
	return out
}

// readParts reads an archive, and leaves its parts as they are encoded.
func readParts(text string) ([]mimePart, error) {
	reader := bufio.NewReader(strings.NewReader(text))
	header, err := textproto.NewReader(reader).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("merge userData: read the archive's header: %w", err)
	}
	mediaType, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(mediaType, "multipart/") || params["boundary"] == "" {
		return nil, fmt.Errorf("merge userData: Content-Type %q is no multipart archive with a boundary", header.Get("Content-Type"))
	}
	archive := multipart.NewReader(reader, params["boundary"])
	var out []mimePart
	for {
		part, err := archive.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("merge userData: read part %d: %w", len(out)+1, err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			return nil, fmt.Errorf("merge userData: read part %d: %w", len(out)+1, err)
		}
		out = append(out, mimePart{header: headerLines(part.Header), body: string(bytes.TrimRight(body, "\n")) + "\n"})
	}
}

// headerLines writes a part's header, the type first.
func headerLines(header textproto.MIMEHeader) string {
	var out strings.Builder
	for _, key := range []string{"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Mime-Version", "X-Merge-Type", "Merge-Type"} {
		for _, value := range header.Values(key) {
			fmt.Fprintf(&out, "%s: %s\n", key, value)
		}
	}
	return out.String()
}

// writeParts writes an archive whose boundary is in none of its parts.
func writeParts(parts []mimePart) (string, error) {
	at := boundary
	for n := 2; ; n++ {
		taken := false
		for _, part := range parts {
			taken = taken || strings.Contains(part.body, "--"+at)
		}
		if !taken {
			break
		}
		at = fmt.Sprintf("%s%d", boundary, n)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=%q\n\n", at)
	for _, part := range parts {
		for line := range strings.Lines(part.body) {
			if strings.HasPrefix(line, "--"+karpenterBoundary) {
				return "", fmt.Errorf("render userData: the line %q ends a part of the archive that Karpenter writes; write it differently", strings.TrimSpace(line))
			}
		}
		fmt.Fprintf(&out, "--%s\n%s\n%s\n", at, part.header, part.body)
	}
	fmt.Fprintf(&out, "--%s--\n", at)
	return out.String(), nil
}

// nodeConfigTaints are the taints that the last NodeConfig of an earlier userData registers with.
func nodeConfigTaints(parts []mimePart) ([]corev1.Taint, error) {
	var out []corev1.Taint
	for _, part := range parts {
		if part.mediaType() != nodeConfigType {
			continue
		}
		var config struct {
			Spec struct {
				Kubelet struct {
					Config struct {
						RegisterWithTaints []corev1.Taint `json:"registerWithTaints"`
					} `json:"config"`
				} `json:"kubelet"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(part.body), &config); err != nil {
			return nil, fmt.Errorf("merge userData: read its NodeConfig: %w", err)
		}
		if taints := config.Spec.Kubelet.Config.RegisterWithTaints; len(taints) > 0 {
			out = taints
		}
	}
	return out, nil
}
