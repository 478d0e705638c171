# The same verbs for people and CI. Every target installs what it needs into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Processes of the tests share the cores: threads that wait must not spin.
QUIET := OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0
# More overrides for the demo's two runs, for instance: make demo DEMO_ARGS="seed=1".
DEMO_ARGS ?=
# The published run that reproduce-camvid makes again.
ARM ?= cycleaspp
SEED ?= 0
FOLD ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup demo table1 bench test test-web notebooks reproduce-camvid report-camvid reproduce-heads report-heads gpu-check size test-docs test-oracles chaos fuzz audit test-slow test-slurm lint format clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done ## Create .venv with the package and everything the tests need

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup ## Train on drawn street scenes beside a backbone-only baseline (minutes, CPU, no download)
	$(BIN)/python src/train.py experiment=demo $(DEMO_ARGS)

table1: setup ## Count the GFLOPs of the paper's Table 1 (seconds)
	$(BIN)/python src/complexity.py table=table1

bench: .venv/.bench ## Measure what the README claims beside others' code (half an hour); a part: make bench ROWS=adc,data
	$(BIN)/python bench/run.py --rows "$(ROWS)"

# mmsegmentation has no wheel; where it cannot be built, its rows are left out.
.venv/.bench: .venv/.done
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps onedl-mmcv onedl-mmsegmentation \
	  || echo 'mmsegmentation could not be installed: rows that need it are left out.'
	touch $@

test: setup lint ## Lint, check types, run the tests
	$(QUIET) $(BIN)/pytest -n auto --dist worksteal

test-web: setup ## Drive the explorer in a headless Chromium (installs it with apt-get if there is none)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq chromium; } \
	  || { echo 'No Chromium was found, and apt-get could not install one: install chromium.'; exit 1; }
	$(BIN)/pytest -m web

notebooks: setup ## Execute all notebooks (minutes, no data needed)
	$(BIN)/pytest -m notebook

reproduce-camvid: setup ## Train one published run afresh and compare: make reproduce-camvid ARM=cycleaspp SEED=0 (needs $CAMVID_ROOT)
	OMP_NUM_THREADS=1 $(BIN)/python src/train.py experiment=camvid_ablation hydra.mode=RUN \
	  logger=csv arm=$(ARM) seed=$(SEED) resume=never \
	  hydra.run.dir=runs/reproduce_camvid/$(ARM)-seed$(SEED)
	$(BIN)/python src/publish.py runs=runs/reproduce_camvid/$(ARM)-seed$(SEED) \
	  output=results/camvid check=true

reproduce-heads: setup ## Train one published run of results/heads afresh (needs $CAMVID_ROOT): make reproduce-heads ARM=cycleaspp FOLD=0 SEED=0
	OMP_NUM_THREADS=1 $(BIN)/python src/train.py experiment=heads hydra.mode=RUN arm=heads/$(ARM) \
	  dataset.fold=$(FOLD) seed=$(SEED) resume=never \
	  hydra.run.dir=runs/reproduce_heads/$(ARM)-fold$(FOLD)-seed$(SEED)
	$(BIN)/python src/publish.py runs=runs/reproduce_heads/$(ARM)-fold$(FOLD)-seed$(SEED) \
	  output=results/heads check=true

report-heads: setup ## Write the reports of results/heads and heads_scenes again, from these folders alone
	$(BIN)/python src/report.py runs=results/heads output=results/heads/report images=0 \
	  title="Heads on frozen features of CamVid" plan=results/heads/plan.yaml \
	  'baseline=DenseASPP(1,3,6,8,11,14)' block=20
	$(BIN)/python src/report.py runs=results/heads_scenes output=results/heads_scenes/report images=0 \
	  title="Heads on frozen features of drawn streets" plan=results/heads_scenes/plan.yaml \
	  'baseline=DenseASPP(1,2,4,6,8,10)'

report-camvid: setup ## Write both reports of the published CamVid ablation again, from results/camvid alone
	$(BIN)/python src/report.py runs=results/camvid output=results/camvid/report images=0 \
	  title="CamVid ablation" protocols=whole,paper_ms plan=results/camvid/plan.yaml \
	  baseline=Baseline block=20
	$(BIN)/python src/report.py runs=results/camvid output=results/camvid/report-windows images=0 \
	  title="CamVid ablation, by windows of 240 x 240 (not planned)" protocols=windows240 \
	  plan=results/camvid/posthoc.yaml baseline=Baseline block=20

gpu-check: setup ## Check and measure on a CUDA GPU, in under 8 minutes (bench/gpu.py); SMALL=1 tries it out on the CPU
	$(BIN)/python bench/gpu.py $(PARTS)

size: setup ## Count the lines of core and lab, the longest file and function, lines over 100 columns
	@$(BIN)/python tests/size.py

test-docs: setup ## Run every command of README and docs, shrunk
	$(QUIET) $(BIN)/pytest -m docs

# Their packages want the other OpenCV and compiled operators, and need neither here.
.venv/.oracles: .venv/.done
	$(BIN)/python -c 'import mmseg' 2>/dev/null || { \
	  $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]' && \
	  $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps mmcv-lite onedl-mmsegmentation; }
	touch $@

test-oracles: .venv/.oracles ## Hold the compared systems against mmsegmentation's (installs it)
	$(QUIET) $(BIN)/pytest tests/models/test_zoo.py

chaos: setup ## Kill trainings and sweeps at random moments and compare with undisturbed ones (minutes)
	$(BIN)/python tests/chaos.py
	$(BIN)/python tests/kills.py

fuzz: setup ## Damage 500 files and run the commands that read them (a quarter of an hour)
	$(BIN)/python tests/fuzz.py

audit: setup ## Give hostile files to every command and watch what it does (minutes)
	$(BIN)/python tests/audit.py

test-slow: setup ## Run the tests that take minutes (one of them needs a C++ compiler): TESTS=tests/training
	$(QUIET) $(BIN)/pytest -m slow -n auto $(TESTS)

test-slurm: setup ## Run sweeps, DDP and a requeue on a SLURM of this machine (needs slurm-wlm and munge, and root)
	$(BIN)/pytest -m slurm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove caches; ask before removing runs
	rm -rf .mypy_cache .ruff_cache .pytest_cache build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@if [ -d runs ]; then printf 'Delete all training runs in runs/ too? [y/N] '; \
	  read answer || true; [ "$$answer" = y ] && rm -rf runs || echo 'Kept runs/.'; fi
