# make reproduce   run the five notebooks with the profile that fits this machine, results under build/
# make test        lint, unit tests, and all notebooks in seconds-long smoke runs
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: reproduce test lint unit smoke notebooks colab clean

reproduce: $(STAMP)
	$(BIN)/python -m monodepth_nb.course.reproduce

test: lint unit smoke

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(STAMP)
	$(BIN)/python -m pytest tests

smoke: $(STAMP)
	MONODEPTH_PROFILE=smoke $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --durations=5 notebooks

# Run the notebooks and store their outputs in the .ipynb files that are committed.
notebooks: $(STAMP)
	$(BIN)/python -m monodepth_nb.course.reproduce --commit

# make colab REPO=https://github.com/OWNER/NAME  writes badges and the clone address into README and notebooks
colab: $(STAMP)
	$(BIN)/python -m monodepth_nb.course.colab $(REPO)

$(STAMP): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf build $(VENV) *.egg-info
