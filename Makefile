# The few commands of this project. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-long e2e model mutations conformance soak bench-fence image image-test image-check tools crds chart fmt clean prerequisites

STORE ?= file

# A cluster is touched only when it is named to make: one that merely happens to be configured in the shell is nobody's demo.
ifeq ($(origin KUBECONFIG),command line)
demo_flags := --kubeconfig '$(KUBECONFIG)'
endif
unexport KUBECONFIG

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: prerequisites ## The main job on real parts, narrated; STORE=s3 for an S3 server, KUBECONFIG=... for a cluster of yours
	@case '$(STORE)' in file|s3) ;; *) echo "STORE is 'file' or 's3', not '$(STORE)'." >&2; exit 2;; esac
	@tools/build.sh >/dev/null
	@echo "Building Epochwarden (about 6 minutes the first time, on 2 cores) ..."
	@cargo build --workspace --bins --examples
	@export EPOCHWARDEN_TOOLS_BIN="$$(tools/build.sh)"; target="$$(tools/target-dir.sh)"; \
	  exec "$$target/debug/examples/demo" --store '$(STORE)' $(demo_flags)

test: prerequisites ## Formatting, lints, documentation, CRD drift and all tests
	@tools/test.sh

test-long: prerequisites ## The tests that take too long for every day: operators that are killed, an API server that is away, policies by the thousand
	@tools/test.sh long

e2e: prerequisites ## The tests on a real node of Kubernetes, with pods; as root on Linux
	@tools/test.sh e2e

model: prerequisites ## The models of the protocol with larger bounds than in `make test`
	@tools/test.sh model

mutations: prerequisites ## Code that is broken on purpose, in one place after the other, to see that the simulation or a test notices
	@tools/test.sh mutations

conformance: prerequisites ## The library on stores whose servers take long to get: MinIO, and Azurite where npm is there
	@tools/test.sh conformance

bench-fence: prerequisites ## From a Lease change to the durable fence: alone, among 1,000 policies, beside a prune; PART=lone, crowd or prune for one of them
	@export EPOCHWARDEN_TOOLS_BIN="$$(tools/build.sh)"; cargo bench --bench fence -- $(PART)

soak: prerequisites ## The simulation with ever new seeds, until it is stopped or a promise is broken; EPOCHWARDEN_SEED=N begins at N
	@cargo test --workspace --test simulation -- --ignored --exact tests::soak --nocapture

image: ## The container image, as an OCI archive: dist/epochwarden-image.tar, localhost/epochwarden:dev
	@tools/image.sh

image-test: prerequisites image ## The image's binary in the image's files: names, certificates, TLS; needs root on Linux
	@export EPOCHWARDEN_TOOLS_BIN="$$(tools/build.sh)" EPOCHWARDEN_IMAGE="$$PWD/dist/epochwarden-image.tar"; cargo test --test e2e -- image:: --nocapture

image-check: ## Whether two builds of the image, in two folders, are the same
	@tools/image.sh --check

tools: prerequisites ## Build the servers that tests and the demo run against, once, into the user's cache
	@tools/build.sh

crds: prerequisites ## Write crds/, and with it the chart's resource, from the types in src/api
	@tools/crds.sh

chart: ## Write the chart's README from its values
	@tools/chart-readme.sh

fmt: ## Format the code
	@cargo fmt --all

clean: ## Remove what Cargo built; the servers in the user's cache stay
	@cargo clean

prerequisites:
	@tools/prerequisites.sh
