# make demo        installs, then shows the whole loop: a policy that gets better while it serves
# make install     makes the environment in .venv
# make test        installs, then checks and tests (under ten minutes on two cores)
# make test-all    what is heavier: kill -9 of every process, the whole demo, a hundred publications, a long client
# make check       format, lint, types, import floors
# make bench       timings on this machine; make bench-learning learning curves of the methods
#                  (an hour; resumable; ARGS="--methods grpo --seeds 0 --jobs 2"); make bench-poisoning what poisoned
#                  sessions teach with and without guards (likewise); make bench-memory rules in the weights against
#                  rules in the prompt (likewise; ARGS="--rules 200"); make bench-personalisation users with habits
#                  (likewise; ARGS="--seeds 0 1"); make bench-gpu where there is a GPU

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0

# torch comes from a local CPU build where pip is configured to find one, else from the public index of CPU builds.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Many tests wait for processes of their own, so there is one worker more than cores.
WORKERS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 3 ? cores + 1 : 4)))

INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-all check bench bench-learning bench-poisoning bench-memory bench-personalisation bench-gpu clean

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/agentrl demo --seed $(SEED)

test: $(INSTALLED) check
	$(BIN)/pytest -m "not heavy" --numprocesses $(WORKERS) --dist loadfile

test-all: $(INSTALLED)
	$(BIN)/pytest -m heavy

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m bench

bench-learning: $(INSTALLED)
	$(BIN)/python -m bench.learning $(ARGS)

bench-poisoning: $(INSTALLED)
	$(BIN)/python -m bench.poisoning $(ARGS)

bench-memory: $(INSTALLED)
	$(BIN)/python -m bench.memory $(ARGS)

bench-personalisation: $(INSTALLED)
	$(BIN)/python -m bench.personalisation $(ARGS)

bench-gpu: $(INSTALLED)
	$(BIN)/python -m bench.gpu

$(INSTALLED): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "agentrl needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
	  { $(BIN)/pip install -q --no-deps --no-index torch==2.13.0 2>/dev/null || \
	    $(BIN)/pip install -q --no-deps --index-url $(TORCH_INDEX) torch==2.13.0 || \
	    $(BIN)/pip install -q --no-deps torch==2.13.0; }
	$(BIN)/pip install -q -c constraints-cpu.txt -e '.[dev,embeddings]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist
