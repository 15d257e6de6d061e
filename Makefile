# make demo   synthetic capture -> training -> renders -> scores, under output/demo (no GPU needed)
# make test   linter and tests

PYTHON ?= python3
VENV := .venv
TEST_TOOLS := pytest==9.2.0 pytest-xdist==3.8.0 ruff==0.17.6

.PHONY: demo test clean

demo: $(VENV)/.installed
	$(VENV)/bin/python script/run_demo.py

test: $(VENV)/.test-tools
	$(VENV)/bin/ruff check .
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 8 --max-worker-restart 2 --dist loadfile --no-loadscope-reorder

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "error: python3 cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.test-tools: $(VENV)/.installed Makefile
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(TEST_TOOLS)
	touch $@

clean:
	rm -rf $(VENV) output
