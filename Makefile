# `make help` lists the targets. Nothing needs installing by hand but Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OURS   := $(VENV)/.ours
TORCH  := $(shell grep '^torch==' requirements.lock)
# The pins with the digests of their files, where these are known for this kind of machine; else the pins alone.
PINS   := $(shell $(PYTHON) -c 'import sys, sysconfig as s; here = "cp%d%d-%s" % (*sys.version_info[:2], s.get_platform()); print("requirements.hashes" if here in open("requirements.hashes").readline().split() else "requirements.lock")')
HASHED := $(if $(filter %.hashes,$(PINS)),--require-hashes)
# Where our own packages lie; one that is new is found although nothing new is to be installed.
SOURCE := schemas/src $(wildcard libs/*/src) $(wildcard services/*/src) cli/src infra/local/src infra/provision/src
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --log $(VENV)/install.log
SEEDS  ?= 10000
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(1 + len(os.sched_getaffinity(0)))')
export HF_HUB_OFFLINE := 1

# $(call TIMED,what,command): says how long it took, or which log to look into
define TIMED
began=$$(date +%s); if $(2); then echo "  $(1): $$(($$(date +%s) - began)) s"; \
else echo "error: $(1) could not be installed; see $(VENV)/install.log, then run make again" >&2; exit 1; fi
endef

.DEFAULT_GOAL := help
.PHONY: help venv up down status logs demo test sim planted house lint types e2e honoured rights clients screenshots containers chaos two-of-each sweep cells poison trainer-kills drain hostile bench table-q shuffled more-rows schemas permissions record hashes image-locks sbom base-model clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

venv: $(OURS) ## make the virtual environment from requirements.lock

$(STAMP): requirements.lock requirements.hashes Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Sartor needs Python 3.11 or newer, and $(PYTHON) is older; set PYTHON= to a newer one")'
	@echo "installing the packages of requirements.lock into $(VENV), once: some minutes, mostly downloads (log: $(VENV)/install.log)"
	@$(PYTHON) -m venv $(VENV)
	@$(if $(HASHED),,echo "  the digests of files for this kind of machine are not known, so they are not checked; \`make hashes\` adds them")
	@grep -v '^torch==' $(PINS) > $(VENV)/without-torch.txt
	@$(call TIMED,packages,$(PIP) --no-deps $(HASHED) -r $(VENV)/without-torch.txt)
	@$(PYTHON) -I infra/local/src/localstack/startup_files.py $(VENV)
	@$(call TIMED,$(TORCH),$(PIP) -c requirements.lock $(TORCH))
	@$(PYTHON) -I infra/local/src/localstack/startup_files.py $(VENV)
	@touch $@

$(OURS): $(STAMP) $(wildcard libs/*/pyproject.toml) $(wildcard services/*/pyproject.toml)
	@printf '%s\n' $(addprefix $(CURDIR)/,$(SOURCE)) > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sartor.pth"
	@printf '#!%s\nfrom sartor_cli.main import main\nmain()\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/sartor && chmod +x $(BIN)/sartor
	@touch $@

up: venv ## start the whole local stack and print its addresses
	@$(BIN)/sartor up

down: venv ## stop the local stack; its data stays in .sartor
	@$(BIN)/sartor down

status: venv ## show every process: state, memory, CPU
	@$(BIN)/sartor status

logs: venv ## show the newest log lines of all services
	@$(BIN)/sartor logs

demo: venv ## the whole way: upload, automatic fine-tune, evaluation, promotion, chat
	@$(BIN)/sartor demo

test: venv ## every test that needs nothing but Python, but for most of the whole stack, which `make e2e` runs
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(PROCESSES)

sim: venv ## many schedules with faults, by seed: SEEDS=10000 of them, or SEED=123 told line by line
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

planted: venv ## plant each known kind of bug in a copy, and see it caught: ONLY=part of a name, CHANGED=git ref, RESUME=file
	PYTHONHASHSEED=0 $(BIN)/python -m tests.planted $(if $(ONLY),"$(ONLY)") $(if $(CHANGED),--changed $(CHANGED)) $(if $(RESUME),--resume $(RESUME))

e2e: venv ## only the tests of the whole stack through its public API, also the long ones that `make test` leaves out
	$(BIN)/python -m pytest -m "" tests/e2e

honoured: venv ## every field of the SDK's requests through the whole stack, with what becomes of it
	$(BIN)/python -m pytest -m slow -s tests/e2e/test_accepted_means_honoured.py

rights: venv ## a whole stack in which each service has its own database user and object store key: nobody is refused
	$(BIN)/python -m pytest -m slow tests/e2e/test_least_rights.py

clients: venv ## clients of others against a whole stack: LangChain's standard tests, the Node SDK (needs npm)
	$(BIN)/python -m tests.clients

screenshots: venv ## pictures of every page of the console, taken by its browser test into .sartor/screenshots
	SARTOR_SCREENSHOTS=$(CURDIR)/.sartor/screenshots $(BIN)/python -m pytest -m "" tests/e2e/test_console_in_a_browser.py

containers: venv ## every image built and the compose file started by podman, stand-ins for the servers: the main way once (root)
	$(BIN)/python -m tests.containers

sweep: venv ## end a process at every named crash point, once each, and check that the work ends, once
	$(BIN)/python -m tests.chaos.sweep

chaos: venv ## 300 jobs of 10 tenants while 150 processes of the whole stack are killed at random; SEED=n for another order
	$(BIN)/python -m tests.chaos.chaos $(if $(SEED),--seed $(SEED))

two-of-each: venv ## two replicas of each service, one of each killed in the middle: no user hears of it; SEED=n for others
	$(BIN)/python -m tests.chaos.two_of_each $(if $(SEED),--seed $(SEED))

cells: venv ## broker, database, objects and Milvus away, cut, half open, slow or on a full disk: the outcomes of the fault matrix
	$(BIN)/python -m pytest tests/chaos/fault_matrix.py tests/chaos/hot_path.py -s

FROM ?= 338d9ed
house: venv ## what the house has once and what it has little of, beside an earlier state of it; FROM=commit
	@rm -rf .sartor/house && mkdir -p .sartor/house/$(FROM) && git archive $(FROM) | tar -x -C .sartor/house/$(FROM)
	@$(BIN)/python -m tests.architecture.house .sartor/house/$(FROM) .

lint: venv ## style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv ## static types
	$(BIN)/mypy
	$(BIN)/mypy bench

poison: venv ## 300 poison messages among 5,000 healthy ones: what they cost, where they go, how they come back
	$(BIN)/python -m pytest -m slow -s tests/chaos/test_poison.py

hostile: venv ## 300 hostile uploads of one tenant: another tenant's reaches its dataset at once
	$(BIN)/python -m pytest -m slow -s services/ingest/tests/test_hostile_uploads.py

trainer-kills: venv ## a fine-tune killed 20 times, also while it saves and uploads, ends as if nothing had happened
	$(BIN)/python -m pytest -m slow -s tests/chaos/test_trainer_kills.py

drain: venv ## SIGTERM to real processes: what is under way ends, nothing new begins, nothing stays behind
	$(BIN)/python -m pytest -m slow -s tests/chaos/test_drain.py

bench: venv ## print measured ratios against plain peers
	$(BIN)/python -m pytest bench -s -q

table-q: venv ## whether the best arm answers, by data set and rows, through the public API: DATA=folder, MORE=options
	$(BIN)/python -m bench.table_q --data $(or $(DATA),$(error DATA=<folder of data sets>)) $(MORE)

shuffled: venv ## how often an arm that learned answers dealt at random comes to answer: DATA=folder, MORE=options
	$(BIN)/python -m bench.shuffled_labels --data $(or $(DATA),$(error DATA=<folder of data sets>)) $(or $(MORE),--decisions 200)

more-rows: venv ## whether what a data report promises of more rows comes true, and wrong rows are named: DATA=folder
	$(BIN)/python -m bench.more_rows --data $(or $(DATA),$(error DATA=<folder of data sets>)) $(MORE)

schemas: venv ## write the exported event schemas and the catalogue
	$(BIN)/python -m schemas.export

permissions: venv ## write docs/permissions.md: which role may use which route
	$(BIN)/python -m tests.contract.permissions

record: venv ## keep what this release says, for the tests of later ones: RELEASE=0.2.0
	$(BIN)/python -m tests.contract.record $(or $(RELEASE),$(error RELEASE=<version>))

hashes: venv ## write requirements.hashes: the digests of the files that pip takes for requirements.lock on this kind of machine
	$(BIN)/python -m localstack.lock_hashes

image-locks: venv ## write what images are made with: infra/docker/locks and the ingress' routes
	$(BIN)/python -m localstack.image_locks

sbom: venv ## write what each image holds, as CycloneDX, into .sartor/sbom
	$(BIN)/python infra/docker/sbom.py --all .sartor/sbom

base-model: venv ## convert the base model into .sartor/models, for docker-compose.yml
	$(BIN)/python -m localstack.base_models gemma .sartor/models

clean: venv ## stop the stack and delete its data
	@$(BIN)/sartor down
	rm -rf .sartor
