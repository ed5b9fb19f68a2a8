package credentials

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMatchesAsTheKubelet holds the kubelet's documented rules and the cases of its own tests.
// Source: kubernetes pkg/credentialprovider/keyring_test.go@v1.37.2; k8s.io/kubelet config/v1 types.go, MatchImages.
func TestMatchesAsTheKubelet(t *testing.T) {
	for name, tc := range map[string]struct {
		pattern, image string
		want           bool
	}{
		"a host":                               {"kubernetes.io", "kubernetes.io", true},
		"a glob for a label":                   {"*.kubernetes.io", "prefix.kubernetes.io", true},
		"a glob for another label":             {"prefix.*.io", "prefix.kubernetes.io", true},
		"a glob for the last label":            {"prefix.kubernetes.*", "prefix.kubernetes.io", true},
		"two globs":                            {"*.*.kubernetes.io", "prefix1.prefix2.kubernetes.io", true},
		"a glob in a label":                    {"prefix*.kubernetes.io", "prefix-suffix.kubernetes.io", true},
		"a question mark begins a query":       {"?.dkr.io", "1.dkr.io", false},
		"a class is no host of a URL":          {"[ab].dkr.io", "b.dkr.io", false},
		"a glob is one label and not two":      {"*.io", "kubernetes.io.io", false},
		"a glob is not an empty label":         {"*.kubernetes.io", "kubernetes.io", false},
		"fewer labels":                         {"kubernetes.io", "prefix.kubernetes.io", false},
		"another domain":                       {"*.docker.io", "not.right.io", false},
		"a port":                               {"*.kubernetes.io:3000", "prefix.kubernetes.io:3000", true},
		"another port":                         {"kubernetes.io:3000", "kubernetes.io:3001", false},
		"a port where none is asked for":       {"kubernetes.io", "kubernetes.io:3000", false},
		"no port where one is asked for":       {"kubernetes.io:3000", "kubernetes.io", false},
		"no glob in a port":                    {"kubernetes.io:*", "kubernetes.io:3000", false},
		"a path":                               {"kubernetes.io/bar", "kubernetes.io/bar/app", true},
		"a path is a prefix of the text":       {"kubernetes.io/bar", "kubernetes.io/barley", true},
		"another path":                         {"kubernetes.io/bar", "kubernetes.io/foo", false},
		"no path where one is asked for":       {"kubernetes.io/bar", "kubernetes.io", false},
		"no glob in a path":                    {"kubernetes.io/*", "kubernetes.io/bar", false},
		"ECR":                                  {"*.dkr.ecr.*.amazonaws.com", "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/app", true},
		"ECR in China is another pattern":      {"*.dkr.ecr.*.amazonaws.com", "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/app", false},
		"ECR in China":                         {"*.dkr.ecr.*.amazonaws.com.cn", "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/app", true},
		"ECR, FIPS":                            {"*.dkr.ecr-fips.*.amazonaws.com", "111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com/app", true},
		"ECR, dual stack":                      {"*.dkr-ecr.*.on.aws", "111122223333.dkr-ecr.us-east-1.on.aws/app", true},
		"a broken glob":                        {"[.kubernetes.io", "a.kubernetes.io", false},
		"an address":                           {"10.0.*.1:5000", "10.0.7.1:5000/app", true},
		"a host that only begins like another": {"quay.io", "quay.io.evil.example/app", false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, matches(tc.pattern, tc.image)) })
	}
}

// TestTheLongestPatternWins as in the kubelet's keyring: its index is sorted in reverse.
func TestTheLongestPatternWins(t *testing.T) {
	found := entries{"*.example.com": {secret: "glob"}, "quay.example.com": {secret: "host"}, "quay.example.com/team": {secret: "path"}}
	for image, want := range map[string]string{
		"quay.example.com/team/app": "path", "quay.example.com/other": "host", "ghcr.example.com/app": "glob",
	} {
		fitting := found.find(image)
		require.NotEmpty(t, fitting)
		require.Equal(t, want, fitting[0].secret, image)
	}
}
