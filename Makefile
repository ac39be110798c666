# Everything sets itself up: the core in .venv, each backend in an environment of its own (see mlpbench env list).
PY = .venv/bin/python
MLPBENCH = .venv/bin/mlpbench
# One thread each: the core and its workers must not fight over a small machine's cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup quickstart finetune finetune-dev test test-backends test-all check gpu-bundle clean

help:
	@echo "make quickstart     set everything up, train four architectures on real DFT data, write a report (about 15 min)"
	@echo "make finetune       pretrain on GFN2-xTB labels, fine-tune on DFT labels beside scratch (hours; finetune-dev: 15 min)"
	@echo "make test           set the core up and run its tests, with a backend that needs no torch"
	@echo "make test-backends  build the real backends and hold each to the same contract (several minutes)"
	@echo "make check          ruff and mypy"
	@echo "make gpu-bundle     what a machine with a GPU and no network lacks, as wheels (46 MiB), tried out here"

setup:
	@sh .ci/setup 2

quickstart:
	@sh .ci/setup 8
	@sh .ci/quickstart

finetune:
	@sh .ci/setup 8
	@sh .ci/finetune

finetune-dev:
	@sh .ci/setup 8
	@sh .ci/finetune dev

test: setup
	$(MLPBENCH) env build toy
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

test-backends:
	@sh .ci/setup 8
	$(MLPBENCH) env build --all
	$(PY) -m pytest -m "backend and not gpu"

test-all: test test-backends
	$(PY) -m pytest -m "slow and not backend and not gpu and not network and not slurm"

check: setup
	$(PY) -m ruff check mlpbench tests
	$(PY) -m mypy

gpu-bundle: setup
	$(PY) -m tests.gpu.bundle

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist
