# Works with GNU make 3.81 and newer.

PYTHON   ?= python3
PORT     ?= 8888
BIN      := .venv/bin
NOTEBOOK := notebooks/01-what-do-the-units-draw.ipynb
TEST     := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup

.PHONY: help lab test test-all lint notebooks page clean

help:  ## say what there is (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

lab: .venv/.notebook  ## open the notebooks in JupyterLab; PORT=8888 says where
	@address=$$($(BIN)/python -c "$$RUNNING" $(NOTEBOOK)) || exit; \
	if [ -n "$$address" ]; then \
	    printf 'JupyterLab is already running in this folder:\n\n    %s\n\n' "$$address"; exit; \
	fi; \
	flags=; \
	[ "$$(id -u)" != 0 ] || flags="$$flags --allow-root"; \
	[ "$$(uname)" = Darwin ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || flags="$$flags --no-browser"; \
	echo "JupyterLab is starting; Ctrl-C stops it."; \
	exec $(BIN)/python -m jupyterlab --Application.log_level=WARN --port=$(PORT) $$flags \
	    --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/$(NOTEBOOK)

test: lint  ## check style and types, and run the tests
	$(TEST) -m "not slow"

test-all: test  ## the same, then all that is slow and rarely breaks
	$(TEST) -m slow

lint: .venv/.test  ## check style and types alone
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

notebooks: .venv/.test  ## run the notebooks and keep their outputs
	$(BIN)/python tests/refresh_notebooks.py

page: .venv/.test  ## make docs/paint.html anew, the page that paints
	@mkdir -p build docs
	$(BIN)/python -m ganlens dissect layer4 layer6 -o build/page.npz --force --quiet
	$(BIN)/python -m ganlens page build/page-layer4.npz build/page-layer6.npz docs/paint.html --seed 25 --force

clean:  ## remove the environment, the builds and the caches
	rm -rf .venv .venv-lowest build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# .venv/.notebook and .venv/.test say that the extra of that name is installed, as the metadata had it.
.venv/.%: setup.cfg pyproject.toml .ci/constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --editable '.[$*]' --constraint .ci/constraints.txt
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "ganlens needs Python 3.10 or newer; $(PYTHON) is not. Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

# Prints the address of the server that runs in this folder, if there is one.
define RUNNING
import os, sys
from jupyter_server.serverapp import list_running_servers
for server in list_running_servers():
    if os.path.realpath(server["root_dir"]) == os.path.realpath("."):
        print(server["url"] + "lab/tree/" + sys.argv[1] + "?token=" + server["token"])
        break
endef
export RUNNING
