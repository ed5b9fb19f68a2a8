# Everything runs from here. Tools and servers come from the Go module proxy and Debian; nothing else is fetched.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
TOOL := go tool -modfile=test/tools/dev/go.mod

.PHONY: help build generate
help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

build: ## the three binaries into bin/
	go build -trimpath -o bin/ ./cmd/...

generate: ## deep copies and CRDs from the Go types
	$(TOOL) controller-gen object paths=./...
	$(TOOL) controller-gen crd:generateEmbeddedObjectMeta=false paths=./... output:crd:dir=deploy/crd
