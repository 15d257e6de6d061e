# make demo   synthetic capture -> training -> renders -> scores, under output/demo (no GPU needed)
# make real   four videos of a real person -> body and capture -> training -> renders -> scores, under output/real
# make test   linter, type checker and tests
# make test-kernels   the GPU kernels' comparisons alone, on the CPU in Triton's interpreter (part of make test)

PYTHON ?= python3
VENV := .venv
TEST_TOOLS := pytest==9.2.0 pytest-xdist==3.8.0 ruff==0.17.6 basedpyright==1.40.2
TRITON := triton==3.9.0

# Where Python is told to keep no compiled modules, as in many containers, each command here would compile all that it
# imports, for seconds: they are kept within the environment instead.
ifdef PYTHONDONTWRITEBYTECODE
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/compiled
endif

.PHONY: demo real test test-kernels clean

demo: $(VENV)/.installed
	$(VENV)/bin/python script/run_demo.py

real: $(VENV)/.installed
	$(VENV)/bin/python script/run_real.py

# The type checker, a minute of one core, beside the tests, which do not always have work for all cores.
test: $(VENV)/.test-tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright --level error & types=$$!; \
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 8 --max-worker-restart 2 --dist loadfile --no-loadscope-reorder; \
	tests=$$?; wait $$types || { echo "error: the type checker's findings stand above" >&2; exit 1; }; exit $$tests
	$(MAKE) --no-print-directory test-kernels

test-kernels: $(VENV)/.test-tools $(VENV)/.triton
	CUDA_VISIBLE_DEVICES= TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile tests/gpu

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "error: python3 cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.test-tools: $(VENV)/.installed Makefile
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(TEST_TOOLS)
	touch $@

# PyTorch's CUDA builds bring their own Triton, which stays.
$(VENV)/.triton: $(VENV)/.installed Makefile
	$(VENV)/bin/python -c "import triton" 2>/dev/null || $(VENV)/bin/pip install --quiet --disable-pip-version-check $(TRITON)
	touch $@

clean:
	rm -rf $(VENV) output
