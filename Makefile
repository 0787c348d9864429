# Every target is one command of ./posthouse, which works without make as well.

.DEFAULT_GOAL := help
.PHONY: help up down test check bench faults locks

help:
	@echo 'make up      start everything; Ctrl-C stops it (DETACH=1: return when ready; SCALE="gateway=2 ingest=3")'
	@echo 'make down    stop what make up DETACH=1 started; the data stays'
	@echo 'make test    run the tests on servers of their own (ARGS="-k name": arguments of pytest)'
	@echo 'make check   style, types, and who may import whom'
	@echo 'make bench   measure ours beside others (ONLY=rpc,ingest: some parts; QUICK=1: a short run)'
	@echo 'make faults  break everything under load and count (ONLY=R1,R4: some rows; RUNS=3: faults of each)'

up:
	@./posthouse up $(if $(filter 1 yes true,$(DETACH)),--detach) $(if $(SCALE),--scale "$(SCALE)")

down:
	@./posthouse down

test:
	@./posthouse test $(ARGS)

check:
	@./posthouse check

bench:
	@ONLY="$(ONLY)" QUICK="$(QUICK)" ./posthouse bench

faults:
	@ONLY="$(ONLY)" RUNS="$(RUNS)" BARE="$(BARE)" SHORT="$(SHORT)" SEED="$(SEED)" ./posthouse faults

# After a change of dependencies in pyproject.toml. Needs uv; no address and no path may be left in a lock.
# The tests read files of vega-datasets and never import it: what it would compute with is left out.
unused = --no-emit-package pandas --no-emit-package numpy --no-emit-package python-dateutil
compile = uv --no-config pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11
locks:
	$(compile) pyproject.toml --all-extras $(unused) -o requirements-dev.lock
	$(compile) pyproject.toml --extra embedded -c requirements-dev.lock -o requirements.lock
	! grep -nE '://|file:' requirements.lock requirements-dev.lock
