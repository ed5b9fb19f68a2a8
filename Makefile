# Everything runs from here. Tools and servers come from the Go module proxy and Debian; nothing else is fetched.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# What checks and generates the code has a module of its own (test/tools/dev).
TOOL := test/tools/run
UNIT = $$(go list ./... | grep -vE '/test/(integration|containerd|e2e|bench|demo)(/|$$)')
RESULTS := out/test
# The flags of a release (deploy/image), for whatever is compiled here: programs, images and tests without the race detector
# share their object files, and the servers' too: test/tools has the same versions of what both import.
export GOFLAGS := -trimpath -tags=netgo,osusergo
# Without the second, NVIDIA's header greets whoever builds with a hundred warnings.
export CGO_CFLAGS := -O2 -Wno-deprecated-declarations

# run-tests NAME FLAGS PACKAGES: the results as lines, and as JSON for the closing count. Vetting is the linter's (make verify).
run-tests = mkdir -p $(RESULTS) && $(TOOL) gotestsum --format pkgname-and-test-fails --hide-summary skipped --jsonfile $(RESULTS)/$(1).json -- -vet=off $(2) $(3)

.PHONY: help build generate lint fmt verify vuln deps tools test test-unit test-integration test-containerd test-e2e count demo fuzz images clean programs prepare bench-probes bench-pull bench-faults bench-inflate bench-readiness bench-gates bench-learn

help: ## this text
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

build: ## the three binaries into bin/
	go build -trimpath -o bin/ ./cmd/...

generate: ## deep copies and CRDs from the Go types, and the chart's copies and schema
	$(TOOL) controller-gen object paths=./...
	$(TOOL) controller-gen crd paths=./... output:crd:dir=deploy/crd
	mkdir -p deploy/crd/compat
	mv deploy/crd/readiness.node.x-k8s.io_nodereadinessrules.yaml deploy/crd/compat/
	sed -e 's/nodereadinessrules\.headstart\.dev/nodereadinessrules.nodereadiness.k8s.io/' -e 's/group: headstart\.dev/group: nodereadiness.k8s.io/' \
		-e '/shortNames:/d' -e '/    - hrr/d' -e 's|^  annotations:|&\n    api-approved.kubernetes.io: unapproved, the guide'"'"'s own group|' \
		deploy/crd/headstart.dev_nodereadinessrules.yaml > deploy/crd/compat/nodereadiness.k8s.io_nodereadinessrules.yaml
	go run ./deploy/chart/sync

fmt: ## format the code
	$(TOOL) golangci-lint fmt

lint: ## golangci-lint with the house's list
	$(TOOL) golangci-lint run ./...

verify: generate lint ## generated code fresh, modules tidy, lint clean
	@git diff --exit-code --stat -- deploy '*zz_generated*' || { echo "generated files are stale: run 'make generate' and commit"; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard -- deploy '*zz_generated*')" || { echo "generated files are not committed"; exit 1; }
	go mod tidy -diff
	@for mod in $$(git ls-files '*/go.mod'); do echo "go mod tidy -diff # $$mod"; (cd $$(dirname $$mod) && go mod tidy -diff); done

vuln: ## known vulnerabilities (needs the Go vulnerability database, so not part of verify)
	$(TOOL) govulncheck ./...

# Two suites at a time, the long ones first: what one waits for, the other uses. On two cores no more would help.
SUITES := integration unit e2e containerd

test: prepare ## every test: unit, real API server, real containerd, real kubelet; each suite runs, whatever the others say
	@rm -f $(RESULTS)/*.json; failed=; \
	printf '%s\n' $(SUITES) | xargs -P 2 -I '{}' bash -c 'began=$$SECONDS; $(MAKE) --no-print-directory test-{} || failed=1; \
		echo "test: {}: $$((SECONDS - began)) s"; exit $${failed:-0}' || failed=suites; \
	$(MAKE) --no-print-directory count || failed=count; \
	[ -z "$$failed" ] || { echo "failed, see above" >&2; exit 1; }

# Nothing is compiled inside a test's time limit: this has none.
prepare: deps programs ## build ahead of time whatever tests run: servers, our own programs, what images are made of
	@out/programs/servers -all >/dev/null
	@test/tools/compile-image "$$(go env GOHOSTARCH)"

programs: ## build this project's programs as released, and those of the testbed, into out/programs
	@(go list -C test/tools -deps tool ./registry >/dev/null 2>&1 &) # what the servers are built of comes down meanwhile
	@test/tools/compile "the project's programs" -buildvcs=false -ldflags="-s -w" -o out/programs/next/ ./cmd/... ./test/testenv/servers ./test/demo
	@cp -p out/programs/next/servers out/programs/next/demo out/programs/

deps: ## Debian packages that the tests need (test/tools/debian-packages)
	@test/tools/install-debian-packages

tools: ## build the servers that the tests run ahead of time (they build what they need by themselves)
	go run ./test/testenv/servers

demo: deps programs ## boot one node on real components, without Headstart and with it (root)
	@out/programs/demo

test-unit: deps ## unit tests with the race detector: no root, no servers
	$(call run-tests,unit,-race,$(UNIT))

test-integration: deps ## against a real etcd and kube-apiserver; two packages at a time, as they wait more than they work
	$(call run-tests,integration,-p 2 -timeout 20m,./test/integration/...)

test-containerd: deps ## against a real containerd and registry (root)
	$(call run-tests,containerd,-p 1 -timeout 20m,./test/containerd/...)

test-e2e: deps ## a real node: kubelet, containerd, scheduler (root)
	$(call run-tests,e2e,-p 1 -timeout 20m,./test/e2e/...)

.PHONY: cold
cold: deps ## both of the README's commands in a fresh clone with every cache empty, and where the time went (an hour)
	test/cold

.PHONY: test-long
test-long: prepare ## what is too long for make test: the images of every architecture, the models for MODEL_TIME each
	@for arch in amd64 arm64; do test/tools/compile-image $$arch; done
	HEADSTART_LONG=1 go test -count=1 -timeout 60m ./deploy/image ./test/e2e/shipped
	$(MAKE) test-model test-model-gates

.PHONY: test-model
MODEL_TIME ?= 10m
test-model: deps ## random sequences of events against the model of readiness rules, MODEL_TIME long (10m, for the night)
	HEADSTART_MODEL_TIME=$(MODEL_TIME) go test -run '^TestModel$$' -count=1 -timeout 60m -v ./test/integration/readiness

.PHONY: test-model-gates
test-model-gates: deps ## random events against the rule that a gated pod is never worse off, MODEL_TIME long
	HEADSTART_MODEL_TIME=$(MODEL_TIME) go test -run '^TestModelOfGates$$' -count=1 -timeout 60m -v ./test/integration/gates

bench-probes: deps ## from fact to condition, beside pollers of 1s and 30s (root)
	go run ./test/bench/probes -runs 200

.PHONY: bench-idle
bench-idle: deps build ## what an agent costs that has nothing to do, for ten minutes: CPU time and API requests (root)
	go run ./test/bench/probes -idle 10m -agent bin/headstart-agent

.PHONY: rbac-report
rbac-report: ## what each identity can do, feature by feature, beside the roles of others
	@go run ./test/rbac

fuzz: ## every fuzz test for FUZZTIME (30s), side by side
	@test/fuzz

count: # the closing line of everything that ran since the last clean
	@cat $(RESULTS)/*.json | test/count

images: deps ## OCI layouts of the agent's and the controller's image, amd64 and arm64, into out/images (REGISTRY=host/path pushes them)
	@for arch in amd64 arm64; do test/tools/compile-image $$arch; done # with progress, where nothing is cached
	@go run ./deploy/image/publish $(if $(REGISTRY),-registry $(REGISTRY),-layout out/images)

clean: ## remove what was built here (the cached servers stay: see the README)
	rm -rf bin out

bench-pull: deps ## pulls beside the CRI, ctr, containerd's Transfer service and the bare limit (root; an hour at full size)
	go run ./test/bench/pull -tools "$$(go run ./test/testenv/servers)"

bench-faults: deps ## break a pull in every way and print how many bytes came twice, beside the bars (root)
	go run ./test/bench/faults

bench-inflate: ## ways to inflate a layer of 2 GiB, and its spans on all cores beside one stream (libisal-dev, isal and pigz add theirs)
	go test $$(test ! -e /usr/include/isa-l.h || echo -tags isal) -run '^$$' -bench . -benchtime 3x -timeout 20m ./prepull/containerd/internal/inflate

bench-readiness: build ## how fast nodes are released, beside the writers taking the taint off themselves
	go run ./test/bench/readiness -controller bin/headstart-controller

bench-gates: ## how fast gates are lifted, beside bare patches of as many pods from as many clients
	go run ./test/bench/gates

bench-learn: ## a simulated week: how many pod starts find their image, learned beside a static list and all images everywhere
	go run ./test/bench/learn
