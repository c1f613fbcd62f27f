# One entry point. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo install test check fuzz advisories e2e bench generate binaries image example-image cluster-up cluster-down

target   := x86_64-unknown-linux-gnu
release  := target/$(target)/release
image    := localhost/aigise-operator:dev
archive  := target/image/aigise-operator.oci.tar
example  := target/image/crash-triage.oci.tar
cluster  := tests/kind/cluster
# A developer's cluster and that of a test run never meet.
CLUSTER  ?= aigise
export CLUSTER
BENCH    ?= startup cache scale

help: ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: image example-image cluster-up ## Run the main job on a real cluster, from nothing
	@$(MAKE) --no-print-directory install
	$(cluster) load $(example)
	eval "$$($(cluster) env)" && examples/crash-triage/demo.sh

install: image cluster-up ## Install the operator on the cluster by Helm; VALUES='--set …' are further ones
	$(cluster) load $(archive)
	eval "$$($(cluster) env)" && \
	helm upgrade --install aigise charts/aigise-operator -n aigise-system --create-namespace \
	  --set image.repository=localhost/aigise-operator --set image.tag=dev \
	  --set-string podAnnotations.image-digest=$$(sha256sum $(archive) | cut -c1-16) $(VALUES) && \
	kubectl -n aigise-system rollout status deploy/aigise-operator --timeout 120s

test: check fuzz e2e ## Run every test

check: ## The fast loop: format, dependencies, lints, links of the documentation, the pure build, unit tests
	cargo fmt --check
	tests/deny.sh licenses bans sources
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links -A rustdoc::private_intra_doc_links" cargo doc --lib --no-deps --document-private-items --quiet
	cargo check --lib --no-default-features --quiet
	cargo test --lib --bins --test it --test sandboxd --test init

fuzz: ## Read twenty million damaged archives, which takes a minute
	LAYER_FUZZ=20000000 cargo test --lib --quiet layer::tests::fuzz

advisories: ## Ask RustSec's database on GitHub what is known of the dependencies
	tests/deny.sh advisories

e2e: export CLUSTER := aigise-test
e2e: image example-image ## Run the tests on a real cluster (its own, which is gone afterwards)
	tests/e2e.sh

bench: export CLUSTER := aigise-test
bench: ## Measure on the cluster of the tests; BENCH=startup, cache or scale chooses one part
	for part in $(BENCH); do tests/bench.sh "$$part"; done

generate: ## Write what is generated: crds/ and the chart's copy
	cargo run --quiet --bin aigise-operator -- crds --into crds
	mkdir -p charts/aigise-operator/files/crds
	cp crds/*.yaml charts/aigise-operator/files/crds/

binaries: ## Build the release binaries, static
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(target)

image: binaries ## Build the operator's image, without a registry, into target/image
	mkdir -p target/image/context
	@is_there() { cmp -s "$$1" "target/image/context/$${1##*/}"; }; \
	if ! is_there $(release)/aigise-operator || ! is_there $(release)/sandboxd || ! is_there src/sandboxd/gitconfig || [ ! -e $(archive) ]; then \
	  cp $(release)/aigise-operator $(release)/sandboxd src/sandboxd/gitconfig target/image/context/; \
	  tests/kind/image.sh $(archive) $(image) target/image/context Dockerfile; \
	fi

example-image: $(example) ## Build the image of the example from packages of Debian and PyPI
$(example): $(wildcard examples/crash-triage/image/*)
	examples/crash-triage/image/build.sh $@

cluster-up: ## Bring up the cluster; nothing to do when it is up
	$(cluster) up

cluster-down: ## Delete the cluster and leave the machine as it was
	$(cluster) down
