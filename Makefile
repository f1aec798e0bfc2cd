# One word for each habit. `make PYTHON=python` uses another environment than .venv.
PYTHON ?= .venv/bin/python
BENCH ?= /tmp/vfscreen-bench

.PHONY: test slow lint types docs site bench sample pictures ci

test:  ## the test suite
	$(PYTHON) -m pytest

slow:  ## with the tests that simulate for minutes
	$(PYTHON) -m pytest --run-slow

lint:  ## style and format
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

types:
	$(PYTHON) -m mypy

docs:  ## pages that are made from the code
	$(PYTHON) -m typer vfscreen.cli utils docs --name vfscreen --output docs/cli.md
	$(PYTHON) -c "from vfscreen.pages import data_dictionary as d; print(d(), end='')" > docs/data-dictionary.md
	$(PYTHON) -c "from vfscreen.pages import errors_page as e; print(e(), end='')" > docs/errors.md
	$(PYTHON) -c "from vfscreen.redcap import data_dictionary as d; print(d(), end='')" > docs/redcap.csv

site:  ## the pages of docs/ as a site in site/
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

bench:  ## accuracy, seconds, memory, and the curves: hours; alone, benchmarks/everything.py --quick takes 20 minutes
	$(PYTHON) benchmarks/everything.py --accuracy --out $(BENCH)

sample:  ## sample_data/ anew
	$(dir $(PYTHON))vfscreen simulate --sample --out sample_data

pictures:  ## those of docs, with screenshots of a small run; BESIDE=FOLDER outside the repository shows real CT beside them
	$(PYTHON) docs/example_picture.py
	$(PYTHON) docs/screenshots.py
	$(PYTHON) docs/simulation_pictures.py $(if $(BESIDE),--beside-real $(BESIDE))

ci:  ## from a clean clone
	.ci/run
