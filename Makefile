# Each target only calls tools. `make run` and `make test` need Rust, Node 20, gcc and Python on a
# Debian-like system; scripts/ensure-* install other packages and print their names.

CARGO ?= cargo
NPM ?= npm --no-audit --no-fund --loglevel=error

# The agent without the hub, with the features of dependencies that the whole workspace selects.
LEAN_AGENT = --workspace --exclude perfwatch-bench --exclude perfwatch-fuzz --no-default-features --bin perfwatch-agent

.PHONY: run test check bench docs web release dist clean deny

run: web
	$(CARGO) run --locked --profile quick -p perfwatch --bin perfwatch -- $(ARGS)

web: web/dist/index.html

web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && $(NPM) ci
	touch $@

web/dist/index.html: web/node_modules/.installed web/index.html web/vite.config.ts $(shell find web/src web/public web/docs docs -type f 2>/dev/null) ARCHITECTURE.md SECURITY.md
	cd web && $(NPM) run -s build
	touch $@

# Fast checks run first, browser tests last. Tests of `deploy/` and of the browser run the binaries that the tests of
# the workspace have built: building a single package selects other features of dependencies and compiles them again.
test: check deny
	scripts/ensure-postgres
	scripts/ensure-sshd
	scripts/ensure-redis
	scripts/ensure-proxies
	scripts/ensure-curl
	$(CARGO) test --locked --workspace
	cd web && $(NPM) run -s test
	scripts/ensure-browser
	scripts/ensure-kubernetes-tools
	scripts/ensure-debian-root
	target/tools/kubernetes/bin/python -m unittest discover --quiet --start-directory deploy/tests
	cd web && $(NPM) run -s e2e
	cd web && PERFWATCH_BENCH_TINY=1 $(NPM) run -s bench

check: web
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked $(LEAN_AGENT) -- -D warnings
	cd web && $(NPM) run -s check

bench: web
	scripts/ensure-competitors
	scripts/ensure-postgres
	scripts/ensure-redis
	scripts/ensure-sshd
	scripts/ensure-browser
	$(CARGO) build --locked --profile quick -p perfwatch -p perfwatch-bench
	target/quick/perfwatch-bench alerts
	target/quick/perfwatch-bench collect
	target/quick/perfwatch-bench live
	target/quick/perfwatch-bench load
	target/quick/perfwatch-bench ingest
	target/quick/perfwatch-bench history
	target/quick/perfwatch-bench budget
	target/quick/perfwatch-bench rate-limits
	target/quick/perfwatch-bench agentless
	target/quick/perfwatch-bench agent
	target/quick/perfwatch-bench hostile
	target/quick/perfwatch-bench fleet
	target/quick/perfwatch-bench memory
	target/quick/perfwatch-bench idle
	target/quick/perfwatch-bench explore
	target/quick/perfwatch-bench top
	cd web && E2E_BIN=../target/quick/perfwatch $(NPM) run -s bench

# Regenerates reference pages, the API document, and the dashboard's types of the API.
docs: web/node_modules/.installed
	UPDATE_DOCS=1 $(CARGO) test --locked -q -p perfwatch --no-default-features --lib docgen::
	UPDATE_DOCS=1 $(CARGO) test --locked -q -p perfwatch-hub --lib openapi::
	cd web && $(NPM) run -s schema

release: web
	$(CARGO) build --locked --release -p perfwatch

# Static programs, Debian packages, SBOM and checksums: docs/PACKAGES.md.
dist: web
	scripts/dist

# Checks dependencies: security advisories, licenses, sources and banned crates.
deny:
	scripts/ensure-cargo-deny
	scripts/deny

clean:
	rm -rf target web/dist web/node_modules
