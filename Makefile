# The handbook's commands; `make` alone lists them. For GNU make 3.81 or later.
.DEFAULT_GOAL := help
.PHONY: help setup reproduce study study-status study-collect final test test-browser \
  test-lower-bounds lint docs site wheel lab lessons figures notebooks bench faults student \
  instructor address clean
.NOTPARALLEL:

# A mistyped variable would otherwise run the wrong thing for minutes.
VARIABLES := PROFILE DATA ENCODER SEEDS ROWS MAX_STEPS EPOCHS JOBS ONLY PYTHON TORCH_INDEX \
  REPOSITORY
SPACE := $(subst ,, )
GIVEN := $(foreach word,$(subst \$(SPACE),,$(MAKEOVERRIDES)),$(firstword $(subst =, ,$(word))))
UNKNOWN := $(filter-out $(VARIABLES),$(patsubst %:,%,$(GIVEN)))
$(if $(UNKNOWN),$(error unknown variable $(UNKNOWN); there are: $(VARIABLES)))

# Where the packages go: the active conda environment (never conda's own `base`), else .venv.
IN_CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
ENVIRONMENT := $(if $(IN_CONDA),$(IN_CONDA),.venv)
BIN := $(ENVIRONMENT)/bin
# Set-up is done once: the stamp is as new as the two files that say what to install.
STAMP := $(if $(IN_CONDA),build/setup-$(notdir $(IN_CONDA)),.venv/setup)
PYTHON ?= python3 python3.13 python3.12 python3.11
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# Without compiling every module at once: Python compiles what is used, when it is first used.
INSTALL := "$(BIN)/python" -m pip --disable-pip-version-check install --no-compile -c constraints.txt

LAB_SETTINGS := $(ENVIRONMENT)/share/jupyter/lab/settings
NO_NEWS := {"@jupyterlab/apputils-extension:notification": \
  {"fetchNews": "false", "checkForUpdates": false}}

LINT = "$(BIN)/ruff" check . && "$(BIN)/ruff" format --check . && "$(BIN)/mypy"
PARAMETERS = $(if $(PROFILE),--profile "$(PROFILE)") $(if $(DATA),--data "$(DATA)") \
  $(if $(ENCODER),--encoder "$(ENCODER)") $(if $(SEEDS),--seeds "$(SEEDS)") \
  $(if $(ROWS),--rows "$(ROWS)") $(if $(JOBS),--jobs "$(JOBS)")
LENGTH = $(if $(MAX_STEPS),--max-steps "$(MAX_STEPS)") $(if $(EPOCHS),--epochs "$(EPOCHS)")

help: ## | List the targets, as here
	@echo 'make TARGET VARIABLE=value ...'
	@echo
	@echo '  target             time     what it does              (times: 2 busy CPU cores, set-up done)'
	@awk -F ' *## *| *\\| *' '/^[a-z-]+:.* ## / { split($$1, name, ":"); \
	  printf "  %-18s %-8s %s\n", name[1], $$2, $$3 }' Makefile
	@echo
	@echo 'Variables of make reproduce and make study, each empty for what the profile says:'
	@echo '  PROFILE=quick|paper|converged   encoder, corpora, protocol; reproduce: quick if not given'
	@echo '  DATA=FOLDER                 corpora in the CS224N layout, or handbook'
	@echo '  ENCODER=NAME|FOLDER         pretrained encoder'
	@echo '  SEEDS=0,1,2  ROWS=3.1,3.2   random seeds; rows of Figures 3 and 4'
	@echo '  JOBS=N                      runs at a time'
	@echo '  MAX_STEPS=N  EPOCHS=N       a shorter run, of reproduce only'
	@echo 'Of make notebooks: ONLY="01 05"   just these'
	@echo 'Of the set-up: PYTHON=PATH   the Python that makes .venv'
	@echo '  TORCH_INDEX=URL   wheel index for torch, such as the CPU one of pytorch.org (smaller)'

setup: $(STAMP) ## 1 min | Make .venv, or use the active conda environment, and install everything

$(STAMP): pyproject.toml constraints.txt
	@echo 'Setting up $(ENVIRONMENT): a minute or two and 1.5 GB, more where torch comes with CUDA; once.'
ifeq ($(IN_CONDA),)
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || { \
	  for python in $(PYTHON); do \
	    "$$python" -c '$(SUPPORTED)' 2>/dev/null && break; python=; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo 'No Python 3.11, 3.12 or 3.13 among: $(PYTHON).'; \
	    echo 'Install one, or name it: make setup PYTHON=/path/to/python3.12'; exit 1; \
	  fi; \
	  "$$python" -m venv --clear .venv || { \
	    rm -rf .venv; \
	    echo "$$python cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; \
	    exit 1; \
	  }; \
	}
endif
	@"$(BIN)/python" -c '$(SUPPORTED)' 2>/dev/null || { \
	  echo '$(ENVIRONMENT) has no Python 3.11, 3.12 or 3.13.'; \
	  echo 'Make it from environment.yml if it is conda'"'"'s; else remove it.'; exit 1; }
ifneq ($(TORCH_INDEX),)
	$(INSTALL) --no-deps --index-url "$(TORCH_INDEX)" torch
	$(INSTALL) --extra-index-url "$(TORCH_INDEX)" -e '.[test]'
else
	$(INSTALL) -e '.[test]'
endif
	@"$(BIN)/python" -m ipykernel install --sys-prefix --name mtl-handbook \
	  --display-name 'Multi-task handbook'
	@# JupyterLab asks everybody at first whether it may fetch news: not here.
	@mkdir -p "$(LAB_SETTINGS)" && test -e "$(LAB_SETTINGS)/overrides.json" || \
	  echo '$(NO_NEWS)' > "$(LAB_SETTINGS)/overrides.json"
	@mkdir -p "$(@D)" && touch "$@"

reproduce: $(STAMP) ## 14 min | Run all notebooks: 21 rows trained, Figures 2-9 in figures/PROFILE/
	@"$(BIN)/mtl" reproduce $(PARAMETERS) $(LENGTH)

study: $(STAMP) ## days | Go through the study's runs on the real corpora; stop and start it at will
	@"$(BIN)/mtl" study run $(PARAMETERS)

study-status: $(STAMP) ## 5 s | Say which runs of the study are done, running and left
	@"$(BIN)/mtl" study status $(PARAMETERS)

study-collect: $(STAMP) ## 5 s | Copy the study's finished runs into data/results/, draw the figures
	@"$(BIN)/mtl" study collect
	@"$(BIN)/mtl" figures

final: $(STAMP) ## 2 hours | Train the model of data/models/final on DATA=FOLDER and its phrases
	@"$(BIN)/mtl" final --out data $(if $(DATA),--data "$(DATA)")

# Nothing here may touch a reader's runs or figures, and threads decide the last bits of a sum.
test notebooks: export OMP_NUM_THREADS := 1
test notebooks: export MKL_NUM_THREADS := 1
test notebooks: export OPENBLAS_NUM_THREADS := 1
test: export MTL_BUILD := $(CURDIR)/build/test
test: export MTL_FIGURES := $(CURDIR)/build/test/figures
test: export MTL_CACHE := $(CURDIR)/build/encoders
test: $(STAMP) ## 30 min | Lint, tests with coverage, stored notebook outputs, a tiny make reproduce
	@echo 'make test, about half an hour: 1 lint and types, 2 tests with coverage, 3 every notebook'
	@echo 'against its stored outputs, 4 make reproduce with two steps a run.'
	@rm -rf build/test
	@echo '1/4 lint and types'
	$(LINT)
	@echo '2/4 tests'
	"$(BIN)/python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
	  --cov=mtl_lib --cov-fail-under=90 tests
	@echo '3/4 notebooks'
	"$(BIN)/python" -m pytest -q -n 2 --dist loadfile --nbval notebooks
	@echo '4/4 reproduce'
	"$(BIN)/mtl" reproduce --max-steps 2

test-browser: $(STAMP) site ## 7 min | JupyterLab and the site in a browser; needs chromium, chromedriver
	$(INSTALL) -e '.[browser]'
	"$(BIN)/python" -m pytest -q -n 2 --dist loadfile tests/browser

# The bounds are those of Python 3.11: later Pythons need later releases.
test-lower-bounds: export MTL_BUILD := $(CURDIR)/build/lower/test
test-lower-bounds: $(STAMP) ## 8 min | The fast tests with the lowest release of every dependency
	python3.11 -m venv --clear build/lower
	"$(BIN)/python" scripts/lower_bounds.py > build/lower/constraints.txt
	build/lower/bin/python -m pip --disable-pip-version-check install --no-compile \
	  $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") \
	  -c build/lower/constraints.txt -e '.[test]'
	build/lower/bin/python -m pytest -q @tests/fast.txt

faults: export MTL_BUILD := $(CURDIR)/build/faults
faults: $(STAMP) ## 10 min | Kill a study 100 times, start it again, compare bit for bit; fuzz the readers
	MTL_FUZZ=20000 "$(BIN)/python" -m pytest -q tests/test_bad_input.py -k any_bytes
	"$(BIN)/python" scripts/faults.py

lint: $(STAMP) ## 20 s | Check style, formatting and types; `ruff format` mends the second
	$(LINT)

# Each module of the library by name: the package itself lists only what it exports, and that once
# it is imported.
PARTS := $(wildcard mtl_lib/*.py) $(patsubst %/__init__.py,%.py,$(wildcard mtl_lib/*/__init__.py))
LIBRARY := $(filter-out mtl_lib.__%,$(subst /,.,$(basename $(PARTS))))
docs: $(STAMP) ## 30 s | Write the reference of mtl_lib, from its docstrings, to build/docs/
	"$(BIN)/python" -c 'from mtl_lib import *; from pdoc.__main__ import cli; cli()' \
	  --docformat google -o build/docs mtl_lib $(LIBRARY)

# The site has an environment of its own: Sphinx needs no torch, and the handbook no Sphinx.
SITE := build/site/.venv
$(SITE)/setup: docs/site/requirements.txt
	@for python in "$(BIN)/python" $(PYTHON); do \
	  "$$python" -c '$(SUPPORTED)' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then echo 'No Python 3.11, 3.12 or 3.13 among: $(PYTHON).'; exit 1; fi; \
	echo 'Setting up $(SITE): about a minute and 220 MB; once.'; \
	"$$python" -m venv --clear $(SITE)
	@$(SITE)/bin/python -m pip --disable-pip-version-check install -q --no-compile -r $<
	@touch $@

site: $(SITE)/setup ## 1 min | Build the handbook as web pages in build/site/html, without network
	@$(SITE)/bin/python scripts/build_site.py

wheel: $(STAMP) ## 20 s | Build the wheel, data and notebooks included, in build/dist/
	"$(BIN)/python" -m pip --disable-pip-version-check wheel --no-deps -w build/dist .

# A terminal opened in JupyterLab finds the `mtl` command.
lab: export PATH := $(abspath $(BIN)):$(PATH)
# The kernel of this environment, whatever others a user has.
lab: export JUPYTER_PREFER_ENV_PATH := 1
# Jupyter refuses root, which one is in a container, unless told.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
lab: lessons ## 5 s | Open your lessons in JupyterLab, beside the solved chapters in notebooks/
	"$(BIN)/python" -m jupyterlab $(AS_ROOT) --ServerApp.root_dir="$(CURDIR)" \
	  --LabApp.default_url=/lab/tree/lessons/00_start_here.ipynb

# What a reader has written there is never touched; remove the folder to have them anew.
lessons: $(STAMP) ## 10 s | Put your copies of the chapters, exercises empty, into lessons/; once
	@test -d lessons || "$(BIN)/mtl" student --out lessons

figures: $(STAMP) ## 10 s | Draw figures/figure_N.* from the best stored study
	"$(BIN)/mtl" figures

# Whom the benchmarks compare with; LibMTL's own needs (torchvision) are not needed.
PEERS := torchjd==0.18.0 LibMTL==1.1.5
bench: $(STAMP) ## 40 min | Benchmarks against transformers, TorchJD and LibMTL; ONLY=step for one
	$(INSTALL) --no-deps $(PEERS)
	for name in $(if $(ONLY),$(ONLY),step surgery evaluate study precision); do \
	  "$(BIN)/python" benchmarks/$$name.py || exit 1; done

notebooks: $(STAMP) ## 7 min | Run the notebooks again and store their outputs (after changing one)
	"$(BIN)/mtl" notebooks $(ONLY)

student: $(STAMP) ## 10 s | Build the student notebooks, without solutions, in build/student/
	"$(BIN)/mtl" student

instructor: $(STAMP) ## 10 s | Build the notebooks with solutions, points and notes in build/instructor/
	"$(BIN)/mtl" student --instructor

address: $(STAMP) ## 2 s | Write REPOSITORY=URL into badges, citation and the chapters' first cells
	"$(BIN)/python" scripts/address.py $(if $(REPOSITORY),"$(REPOSITORY)")

clean: ## 1 s | Remove executed notebooks, profiles' figures, caches; keep runs, encoders, .venv
	rm -rf build/notebooks build/test build/lower build/docs build/lib build/bdist.*
	rm -rf build/site/html build/site/source build/site/doctrees build/site/jupyter_execute
	rm -rf figures/*/ .pytest_cache .mypy_cache .ruff_cache .coverage*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
