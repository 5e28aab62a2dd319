# Everything sets itself up: Python 3.11+, make and git are all that a fresh machine needs.
PYTHON ?= python3
BIN := .venv/bin
# Read for the names of their API (tests/export/tensorrt_api.py), 1.3 MB each; not installed.
TENSORRT := tensorrt-cu12-bindings==10.16.1.11 tensorrt-cu13-bindings==11.4.0.106

# A worker that dies ends the run: one that takes its place may be waited for for ever.
# Files are shared out in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
# Every test that runs networks, which depend on the processor, and none that exports them or runs the command.
NETWORKS := $(filter-out tests/distill/test_tune.py,$(wildcard tests/distill/test_*.py)) \
	tests/pipeline/test_network.py tests/pipeline/test_training.py tests/pipeline/test_metrics.py \
	tests/search/test_spaces.py tests/search/test_mobile.py tests/search/test_vit.py \
	tests/search/test_scorers.py tests/search/test_scorers_on_spaces.py tests/search/test_proxies.py

NEWEST := .venv-newest

.PHONY: demo test test-engines test-avx2 test-newest gpu scan check docs house format clean

demo: .venv/.installed  ## the whole chain on scikit-learn's digits, in a few minutes
	$(BIN)/edgestill run --preset digits

test: .venv/.installed  ## the tests, but for those of test-engines
	$(PYTEST) $(ARGS)

test-engines: .venv/.installed  ## those of whole runs, servers, environments and many processes
	$(PYTEST) -m engines $(ARGS)

test-avx2: .venv/.installed  ## the networks' tests, computed as on a processor without AVX-512
	@if $(BIN)/python -c "import sys, torch; sys.exit(torch.backends.cpu.get_cpu_capability() != 'AVX2')"; \
	then echo "This processor has AVX2 and no more: make test has computed so"; \
	else ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) $(NETWORKS) $(ARGS); fi

test-newest:  ## the tests with the newest releases that pyproject.toml allows; tells what breaks and never fails
	-rm -rf $(NEWEST) && $(PYTHON) -m venv $(NEWEST) \
		&& grep -E '^(torch|nni)==' constraints.txt > $(NEWEST)/kept.txt \
		&& $(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(NEWEST)/kept.txt -e '.[dev]' \
		&& $(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(NEWEST)/kept.txt --no-deps kronfluence axe-playwright-python flwr==1.42.0
	-$(NEWEST)/bin/python -m pip list --disable-pip-version-check --outdated
	-$(NEWEST)/bin/python -m pytest $(ARGS)

gpu: .venv/.installed  ## the tests of a GPU and a benchmark on it, in under eight minutes; says so where there is none
	$(BIN)/python benchmarks/gpu.py $(ARGS)

scan: .venv/.installed  ## convolutions of every shape that the spaces build, as this processor and as AVX2 computes them
	$(BIN)/python benchmarks/convolutions.py --threads 2 --architectures 3 $(ARGS)

check: .venv/.installed  ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.installed  ## the documentation as a site, in site/; fails at a broken link, anchor or a page without a place
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

house: .venv/.installed  ## floors, rooms, circles, long modules and functions, docstrings
	$(BIN)/python benchmarks/house.py $(ARGS)

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(NEWEST) dist build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Redone only when the dependencies changed.
.venv/.installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (a few minutes the first time; skipped while nothing changes)"
	$(PYTHON) -c 'import sys; sys.exit("edgestill needs Python 3.11 or newer, found " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps kronfluence axe-playwright-python flwr
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest .venv/share/tensorrt $(TENSORRT) \
		|| echo "No TensorRT bindings for this Python: the test of our names against its releases will be skipped"
	@touch $@
