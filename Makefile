# nodepatch: every command, listed by "make help". The Debian packages that the
# tests and the demo need stand in hack/packages.txt.
SHELL := /usr/bin/env bash -o pipefail
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMG      ?= nodepatch:dev
MACHINES ?= 2
PLATFORMS ?= $(shell go env GOARCH)
KUBECTL  ?= kubectl

LDFLAGS  := -s -w -X main.version=$(VERSION)
TOOLS    := bin/tools
GEN      := $(TOOLS)/controller-gen
API      := ./api/v1alpha1/

export KUBEBUILDER_ASSETS ?= $(CURDIR)/bin/k8s
# One setting for all, here and in hack/k8s/build: then all builds share what is compiled.
export CGO_ENABLED := 0

##@ The two that matter

.PHONY: demo
demo: ## Build all, boot three machines, install the operator, scan, patch, and show what it did
	hack/demo/run

.PHONY: test
test: packages k8s $(TOOLS)/helm ## Every test: unit, API, controllers, apt in real roots, the whole on real machines
	hack/test

.PHONY: test-kill
test-kill: packages k8s ## Kill the agent at NODEPATCH_KILLS=200 random moments of real deployments
	NODEPATCH_KILLS=$${NODEPATCH_KILLS:-200} go test -count 1 -timeout 60m -run '^TestKill$$' -v ./nodeagent

.PHONY: test-chaos
test-chaos: packages k8s $(TOOLS)/helm ## Every bad day of a rollout: each write of the manager, and three real machines; "make test" has the short form
	NODEPATCH_CHAOS=1 go test -count 1 -p 1 -timeout 90m -v ./controllers/assignment ./test/e2e

.PHONY: test-scale
test-scale: k8s ## The real manager with NODEPATCH_NODES=5000 simulated agents: time, writes, memory; "make test" has 100
	NODEPATCH_NODES=$${NODEPATCH_NODES:-5000} go test -count 1 -timeout 60m -v ./test/scale

##@ Working on it

.PHONY: help
help: ## List these commands
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the manager and the agent into bin/
	go build -ldflags '$(LDFLAGS)' -o bin/manager ./controllers/manager
	go build -ldflags '$(LDFLAGS)' -o bin/agent ./nodeagent

.PHONY: generate
generate: $(TOOLS)/.stamp ## Generate deepcopy, apply configurations, CRDs, the API reference and the chart's templates
	$(GEN) object crd output:crd:dir=config/crd/bases applyconfiguration paths=$(API)
	$(TOOLS)/crd-ref-docs --source-path=api/v1alpha1 --config=config/crd/reference/config.yaml --templates-dir=config/crd/reference/templates --renderer=markdown --output-path=config/crd/README.md --log-level=ERROR
	go run ./hack/reasons >>config/crd/README.md
	cd hack/chart && go run .

.PHONY: format
format: $(TOOLS)/.stamp ## Format the code
	$(TOOLS)/golangci-lint fmt ./...

.PHONY: lint
lint: $(TOOLS)/.stamp ## Lint the code, and the types against the Kubernetes API conventions
	$(TOOLS)/golangci-lint run ./...

.PHONY: verify
verify: ## Generate, format, vet and lint; fail on any difference
	hack/verify

.PHONY: bench
bench: packages ## The benchmarks whose figures the project promises
	go test -run '^$$' -bench . -benchmem ./controllers/... ./nodeagent/...

.PHONY: packages
packages: ## Install the Debian packages of hack/packages.txt that are missing
	@hack/install-packages

.PHONY: tools
tools: $(TOOLS)/.stamp $(TOOLS)/helm ## Build the pinned tools of hack/tools, and helm, into bin/tools

$(TOOLS)/.stamp: hack/tools/go.mod hack/tools/go.sum hack/tools/golangci-lint/main.go
	@mkdir -p $(TOOLS)
	cd hack/tools && go build -ldflags '-s -w' -o ../../$(TOOLS)/ ./golangci-lint \
	  sigs.k8s.io/controller-tools/cmd/controller-gen github.com/elastic/crd-ref-docs golang.org/x/vuln/cmd/govulncheck
	@touch $@

$(TOOLS)/helm: hack/chart/go.mod hack/chart/go.sum
	@mkdir -p $(TOOLS)
	cd hack/chart && go build -ldflags '-s -w' -o ../../$@ helm.sh/helm/v4/cmd/helm
	@touch $@

##@ A cluster of machines on this one

.PHONY: k8s
k8s: ## Build Kubernetes and etcd from Go modules into bin/k8s, once
	hack/k8s/build

.PHONY: cluster
cluster: packages k8s image ## Boot a cluster of MACHINES=2 and leave it running; kubeconfig at bin/cluster/kubeconfig
	hack/machine up -machines $(MACHINES)
	hack/machine load bin/nodepatch-image.tar

.PHONY: cluster-down
cluster-down: ## Remove that cluster without a trace
	hack/machine down

##@ On a cluster of your own

.PHONY: image
image: build ## Write the image IMG as an archive under bin/, without Docker
	go run ./hack/image -tag $(IMG) -o bin/nodepatch-image.tar

.PHONY: push
push: ## Build the image IMG for PLATFORMS="amd64 arm64 …" and upload it, with the credentials of docker login
	@for arch in $(PLATFORMS); do for program in manager:./controllers/manager agent:./nodeagent; do \
	  echo "Building $${program%%:*} for $$arch"; \
	  GOARCH=$$arch go build -ldflags '$(LDFLAGS)' -o bin/push/$$arch/$${program%%:*} $${program##*:} || exit; done; done
	go run ./hack/image -tag $(IMG) -push '$(PLATFORMS)' -programs bin/push -digest bin/nodepatch-image.digest

.PHONY: install
install: ## Install the CRDs alone
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: deploy
deploy: ## Install CRDs, RBAC, admission policies and the manager with image IMG
	$(KUBECTL) kustomize config/default | sed 's|nodepatch:dev|$(IMG)|g' | $(KUBECTL) apply --server-side -f -

.PHONY: dist
dist: ## Write dist/install.yaml and the chart's archive, with IMG by the digest that "make push" got
	@mkdir -p dist
	@image='$(IMG)'; if pushed=$$(grep -F '$(IMG)@' bin/nodepatch-image.digest 2>/dev/null); then image=$$pushed; fi; \
	$(KUBECTL) kustomize config/default | sed "s|nodepatch:dev|$$image|g" > dist/install.yaml; echo "Wrote dist/install.yaml with $$image"; \
	cd hack/chart && go run . -package ../../dist -image "$$image" -version '$(VERSION)'

.PHONY: undeploy
undeploy: ## Put back every node that is worked on (PATIENCE=10m), then take everything away
	KUBECTL='$(KUBECTL)' hack/undeploy
