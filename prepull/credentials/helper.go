package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// A docker config may name programs that hold credentials, one for a registry (credHelpers) or one for all (credsStore). The
// kubelet reads neither; whoever runs `docker login` on the node, or the ECR helper, expects both.
// Source: docker/docker-credential-helpers, client/client.go@v0.9.3.
const (
	helperPrefix = "docker-credential-"
	// helperNothing is what a helper prints that knows nothing of a registry.
	helperNothing = "credentials not found in native keychain"
	// helperToken is the user name of an identity token.
	helperToken = "<token>"
)

// hubServer is how helpers call Docker Hub.
const hubServer = "https://index.docker.io/v1/"

// errNoHelper: the program is not on this node.
var errNoHelper = errors.New("the docker credential helper is not installed")

// askHelper asks one program for a registry's credentials; an empty entry is none. Its errors quote nothing of its output.
func askHelper(ctx context.Context, name, host string) (entry, error) {
	if name == "" || strings.ContainsAny(name, "/ \x00") {
		return entry{}, fmt.Errorf("docker credential helper %.40q: want the name behind %s, without slash or space", name, helperPrefix)
	}
	program, err := exec.LookPath(helperPrefix + name)
	if err != nil {
		return entry{}, fmt.Errorf("%s%s: %w", helperPrefix, name, errNoHelper)
	}
	server := host
	if isDockerHub(host) {
		server = hubServer
	}
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	stdout := &limited{limit: maxAnswer}
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.WaitDelay = time.Second
	cmd.Stdin, cmd.Stdout = bytes.NewReader([]byte(server)), stdout
	if err := cmd.Run(); err != nil {
		if strings.Contains(stdout.String(), helperNothing) {
			return entry{}, nil
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return entry{}, fmt.Errorf("run %s%s: %w", helperPrefix, name, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		return entry{}, fmt.Errorf("%s%s: its answer is no credentials", helperPrefix, name)
	}
	if answer.Username == helperToken {
		answer.Username = ""
	}
	return entry{username: answer.Username, secret: answer.Secret}, nil
}
