# make reproduce   run the five notebooks with the profile that fits this machine, results under build/
# make gpu         on a machine with a GPU: everything that only a GPU can show, in one report (8 minutes)
# make test        lint, unit tests, and all notebooks in seconds-long smoke runs
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLD := 'Python 3.10 or newer is needed, $(PYTHON) is %d.%d: make PYTHON=python3.12' % sys.version_info[:2]
VERSION := import sys; sys.version_info >= (3, 10) or sys.exit($(OLD))
# Several processes with one thread each: on two cores almost twice as fast as one process with two threads.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --durations=5

.PHONY: reproduce gpu test lint unit smoke notebooks colab clean

reproduce: $(STAMP)
	$(BIN)/python -m monodepth_nb reproduce

gpu: $(STAMP)
	$(BIN)/python -m monodepth_nb gpu-check

test: lint unit smoke

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(STAMP)
	$(PARALLEL) tests

# The first notebook by itself: it renders the streets that the others read too.
smoke: export MONODEPTH_PROFILE = smoke
smoke: $(STAMP)
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks/01_data_wrangling.ipynb
	$(PARALLEL) --nbmake --nbmake-timeout=600 notebooks/0[2-9]*.ipynb

# Run the notebooks and store their outputs in the .ipynb files that are committed.
notebooks: $(STAMP)
	$(BIN)/python -m monodepth_nb reproduce --commit

# make colab [REPO=https://github.com/OWNER/NAME]  writes badges and the clone address into README and notebooks;
#                                                  without REPO, those of git's remote "origin"
colab: $(STAMP)
	$(BIN)/python -m monodepth_nb colab $(REPO)

$(STAMP): requirements.txt pyproject.toml
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { $(PYTHON) -c "$(VERSION)" && $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf build $(VENV) *.egg-info
