package credentials_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/credentials"
)

const hush = "s3cr3t-Pa55"

// writeProvider makes a provider program that counts its runs and answers what the script prints.
func writeProvider(t *testing.T, dir, name, script string) {
	t.Helper()
	text := fmt.Sprintf("#!/bin/sh\ncat > %[1]s/request\necho run >> %[1]s/runs\n%[2]s\n", dir, script)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755)) // it is run
}

func answer(cacheKey, duration, pattern string) string {
	return fmt.Sprintf(`cat <<END
{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":%q,"cacheDuration":%q,
 "auth":{%q:{"username":"AWS","password":%q}}}
END`, cacheKey, duration, pattern, hush)
}

func writeConfig(t *testing.T, dir, images string) string {
	t.Helper()
	path := filepath.Join(dir, "config.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: provider
  matchImages: [%s]
  defaultCacheDuration: 12h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [get-credentials]
  env: [{name: EXTRA, value: "1"}]
`, images), 0o600))
	return path
}

func runs(t *testing.T, dir string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "runs"))
	if os.IsNotExist(err) {
		return 0
	}
	require.NoError(t, err)
	return strings.Count(string(data), "run")
}

func TestProviderIsAskedByTheKubeletsProtocol(t *testing.T) {
	dir := t.TempDir()
	writeProvider(t, dir, "provider", `[ "$1" = get-credentials ] && [ "$EXTRA" = 1 ] || exit 3`+"\n"+answer("Registry", "1h", "*.dkr.ecr.*.amazonaws.com"))
	keyring, err := credentials.New(credentials.Config{ProviderConfig: writeConfig(t, dir, `"*.dkr.ecr.*.amazonaws.com"`), ProviderBinDir: dir, DockerConfigs: []string{}, Log: logr.Discard()})
	require.NoError(t, err)
	const host = "1111.dkr.ecr.eu-west-1.amazonaws.com"
	username, secret, err := keyring.Lookup(t.Context(), host+"/team/app:v1", host, 0)
	require.NoError(t, err)
	require.Equal(t, "AWS", username)
	require.Equal(t, hush, secret)
	request, err := os.ReadFile(filepath.Join(dir, "request"))
	require.NoError(t, err)
	require.JSONEq(t, `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"`+host+`/team/app"}`, string(request))

	for _, image := range []string{"/team/app@sha256:" + strings.Repeat("0", 64), "/other:v2", "/team/app"} {
		_, _, err = keyring.Lookup(t.Context(), host+image, host, 0)
		require.NoError(t, err)
	}
	require.Equal(t, 1, runs(t, dir), "one answer serves the registry")
	_, _, err = keyring.Lookup(t.Context(), host+"/team/app", host, 1)
	require.NoError(t, err)
	require.Equal(t, 2, runs(t, dir), "fresh ones were asked for")
	username, secret, err = keyring.Lookup(t.Context(), "quay.io/team/app", "quay.io", 0)
	require.NoError(t, err)
	require.Empty(t, username+secret, "nobody's business")
	username, secret, err = keyring.Lookup(t.Context(), host+"/team/app", "mirror.internal", 0)
	require.NoError(t, err)
	require.Empty(t, username+secret, "a mirror never gets the registry's credentials")
}

func TestProviderRunsOncePerRegistryAtATime(t *testing.T) {
	dir := t.TempDir()
	writeProvider(t, dir, "provider", "sleep 0.3\n"+answer("Registry", "1h", "registry.example"))
	keyring, err := credentials.New(credentials.Config{ProviderConfig: writeConfig(t, dir, "registry.example"), ProviderBinDir: dir, DockerConfigs: []string{}, Log: logr.Discard()})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, secret, err := keyring.Lookup(t.Context(), fmt.Sprintf("registry.example/app%d:v1", i), "registry.example", 0)
			if err != nil || secret != hush {
				t.Errorf("lookup %d: %q, %v", i, secret, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, runs(t, dir))

	for i := range 8 { // a registry has refused what eight images had of it
		wg.Go(func() {
			if _, _, err := keyring.Lookup(t.Context(), fmt.Sprintf("registry.example/app%d:v1", i), "registry.example", 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 2, runs(t, dir), "one new answer is fresh enough for all who asked before it came")
}

func TestFailuresNeverShowSecrets(t *testing.T) {
	cases := map[string]string{
		"no JSON":            "echo 'password: " + hush + "'",
		"another version":    `echo '{"kind":"CredentialProviderResponse","apiVersion":"v9","auth":{"x":{"password":"` + hush + `"}}}'`,
		"no cache key type":  answer("Nothing", "1h", "registry.example"),
		"a failing program":  "echo '" + hush + "'; echo 'no such role' >&2; exit 1",
		"a number for a map": `echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","auth":"` + hush + `"}'`,
	}
	for name, script := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeProvider(t, dir, "provider", script)
			var logged strings.Builder
			log := funcr.New(func(prefix, args string) { logged.WriteString(prefix + args) }, funcr.Options{Verbosity: 5})
			keyring, err := credentials.New(credentials.Config{ProviderConfig: writeConfig(t, dir, "registry.example"), ProviderBinDir: dir, DockerConfigs: []string{}, Log: log})
			require.NoError(t, err)
			_, _, err = keyring.Lookup(t.Context(), "registry.example/app", "registry.example", 0)
			require.ErrorContains(t, err, "provider")
			require.NotContains(t, err.Error(), hush)
			require.NotContains(t, logged.String(), hush)
		})
	}
}

func TestDockerConfigs(t *testing.T) {
	auth := func(user string) string { return base64.StdEncoding.EncodeToString([]byte(user + ":" + hush)) }
	path := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `{"auths":{
		"https://index.docker.io/v1/":{"auth":%q},"quay.io":{"auth":%q},"quay.io/team":{"auth":%q},
		"registry.example:5000":{"username":"plain","password":%q},"token.example":{"auth":%q,"identitytoken":"refresh"}},
		"credsStore":"ignored"}`, auth("hub"), auth("quay"), auth("team"), hush, auth("<token>")), 0o600))
	keyring, err := credentials.New(credentials.Config{DockerConfigs: []string{path}, Log: logr.Discard()})
	require.NoError(t, err)
	for name, tc := range map[string]struct{ image, host, user, secret string }{
		"docker hub by its registry":       {"docker.io/library/nginx:1", "registry-1.docker.io", "hub", hush},
		"the longer path":                  {"quay.io/team/app:v1", "quay.io", "team", hush},
		"the host alone":                   {"quay.io/other/app:v1", "quay.io", "quay", hush},
		"a port":                           {"registry.example:5000/app", "registry.example:5000", "plain", hush},
		"another port":                     {"registry.example:5001/app", "registry.example:5001", "", ""},
		"an identity token":                {"token.example/app", "token.example", "", "refresh"},
		"a mirror with credentials":        {"docker.io/team/app", "quay.io", "team", hush},
		"a mirror without":                 {"quay.io/team/app", "mirror.example", "", ""},
		"nobody":                           {"ghcr.io/team/app", "ghcr.io", "", ""},
		"a tag that looks like a port":     {"quay.io/team/app:5000", "quay.io", "team", hush},
		"a digest":                         {"quay.io/team/app@sha256:" + strings.Repeat("a", 64), "quay.io", "team", hush},
		"without a host it is the image's": {"quay.io/team/app", "", "team", hush},
	} {
		t.Run(name, func(t *testing.T) {
			user, secret, err := keyring.Lookup(t.Context(), tc.image, tc.host, 0)
			require.NoError(t, err)
			require.Equal(t, tc.user, user)
			require.Equal(t, tc.secret, secret)
		})
	}
}

// TestDockerConfigForms are what tools write, and a kubelet or docker reads.
func TestDockerConfigForms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	helper := func(name, script string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\nread server\n"+script), 0o755)) // it is run
	}
	helper("good", `[ "$1" = get ] || exit 9; echo "{\"ServerURL\":\"$server\",\"Username\":\"from $server\",\"Secret\":\"`+hush+`\"}"`)
	helper("token", `echo '{"Username":"<token>","Secret":"refresh"}'`)
	helper("empty", "echo credentials not found in native keychain; exit 1")
	helper("broken", "echo "+hush+"; exit 1")
	raw := base64.RawStdEncoding.EncodeToString([]byte("u:" + hush)) // of a length that wants padding
	require.NotZero(t, len(raw)%4)
	for name, tc := range map[string]struct{ config, image, user, secret, fails string }{
		"unpadded base64":             {`{"auths":{"quay.io":{"auth":"` + raw + `"}}}`, "quay.io/app", "u", hush, ""},
		"padded base64":               {`{"auths":{"quay.io":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("u:"+hush)) + `"}}}`, "quay.io/app", "u", hush, ""},
		"one bad entry among good":    {`{"auths":{"ghcr.io":{"auth":"%%"},"quay.io":{"auth":"` + raw + `"}}}`, "quay.io/app", "u", hush, ""},
		"a helper of the registry":    {`{"credHelpers":{"quay.io":"good"},"auths":{"quay.io":{"auth":"` + raw + `"}}}`, "quay.io/app", "from quay.io", hush, ""},
		"of another registry":         {`{"credHelpers":{"ghcr.io":"good"}}`, "quay.io/app", "", "", ""},
		"of docker hub":               {`{"credHelpers":{"docker.io":"good"}}`, "docker.io/library/app", "from https://index.docker.io/v1/", hush, ""},
		"a store":                     {`{"credsStore":"token","auths":{"quay.io":{}}}`, "quay.io/app", "", "refresh", ""},
		"a store beside an entry":     {`{"credsStore":"good","auths":{"quay.io":{"auth":"` + raw + `"}}}`, "quay.io/app", "u", hush, ""},
		"a store that knows nothing":  {`{"credsStore":"empty"}`, "quay.io/app", "", "", ""},
		"a store that is not there":   {`{"credsStore":"desktop"}`, "quay.io/app", "", "", ""},
		"a helper that is not there":  {`{"credHelpers":{"quay.io":"ecr"}}`, "quay.io/app", "", "", "not installed"},
		"a helper that fails":         {`{"credHelpers":{"quay.io":"broken"}}`, "quay.io/app", "", "", "docker-credential-broken"},
		"a helper with a path for it": {`{"credHelpers":{"quay.io":"../sh"}}`, "quay.io/app", "", "", "without slash"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			require.NoError(t, os.WriteFile(path, []byte(tc.config), 0o600))
			keyring, err := credentials.New(credentials.Config{DockerConfigs: []string{path}, Log: logr.Discard()})
			require.NoError(t, err)
			host, _, _ := strings.Cut(tc.image, "/")
			user, secret, err := keyring.Lookup(t.Context(), tc.image, host, 0)
			if tc.fails != "" {
				require.ErrorContains(t, err, tc.fails)
				require.NotContains(t, err.Error(), hush)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, tc.user, user)
			require.Equal(t, tc.secret, secret)
		})
	}
}

// TestNextCredentials come in the kubelet's order, each once, and then there are none.
func TestNextCredentials(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.json"), filepath.Join(dir, "second.json")
	require.NoError(t, os.WriteFile(first, fmt.Appendf(nil, `{"auths":{"quay.io":{"username":"host","password":%[1]q},
		"quay.io/team":{"username":"team","password":%[1]q},"*.io":{"username":"glob","password":%[1]q},"ghcr.io":{"username":"other","password":%[1]q}}}`, hush), 0o600))
	require.NoError(t, os.WriteFile(second, fmt.Appendf(nil, `{"auths":{"quay.io/team":{"username":"team","password":%[1]q},"quay.io":{"username":"last","password":%[1]q}}}`, hush), 0o600))
	keyring, err := credentials.New(credentials.Config{DockerConfigs: []string{first, second}, Log: logr.Discard()})
	require.NoError(t, err)
	for attempt, want := range []string{"team", "team", "host", "glob", "last", "", ""} {
		user, secret, err := keyring.Lookup(t.Context(), "quay.io/team/app:v1", "quay.io", attempt)
		require.NoError(t, err)
		require.Equal(t, want, user, attempt)
		require.Equal(t, want != "", secret != "", attempt)
	}
}

func TestBadConfigsNameTheField(t *testing.T) {
	dir := t.TempDir()
	const head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n"
	for name, tc := range map[string]struct{ text, want string }{
		"an unknown field":  {head + "providerz: []", "providerz"},
		"another kind":      {"apiVersion: v1\nkind: Pod", "CredentialProviderConfig"},
		"a path for a name": {head + "providers: [{name: ../sh, matchImages: [x], defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1}]", "providers[0].name"},
		"no patterns":       {head + "providers: [{name: p, defaultCacheDuration: 1h, apiVersion: credentialprovider.kubelet.k8s.io/v1}]", "matchImages"},
		"no duration":       {head + "providers: [{name: p, matchImages: [x], apiVersion: credentialprovider.kubelet.k8s.io/v1}]", "defaultCacheDuration"},
		"an old protocol":   {head + "providers: [{name: p, matchImages: [x], defaultCacheDuration: 1h, apiVersion: v0}]", "providers[0].apiVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "config.yaml")
			require.NoError(t, os.WriteFile(path, []byte(tc.text), 0o600))
			_, err := credentials.New(credentials.Config{ProviderConfig: path, ProviderBinDir: dir, Log: logr.Discard()})
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, path)
		})
	}
	_, err := credentials.New(credentials.Config{ProviderConfig: dir, Log: logr.Discard()})
	require.ErrorContains(t, err, "credentialProviderBinDir")
	_, err = credentials.New(credentials.Config{DockerConfigs: []string{filepath.Join(dir, "none.json")}, Log: logr.Discard()})
	require.ErrorContains(t, err, "none.json")
}
