# Each target sets up what it needs, from Python 3.11 or newer and nothing else.
# Versions are ones that were tested; others: `make test-torch TORCH=torch`. Arguments for pytest:
# `make test PYTEST_ARGS="-k zoo"`. Tests run in WORKERS processes.

PYTHON ?= python3
TENSORFLOW ?= tensorflow==2.21.0
JAX ?= jax==0.10.2
# From PyPI this is on Linux the large build with CUDA. Without it: make test-torch \
#   TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
WHEEL_BACKEND ?= jax
PYTEST_ARGS ?=
WORKERS ?= 2

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test test-slow test-jax test-torch lint wheel-test clean

help:
	@echo "make demo        classify a dozen pictures, write demo.png"
	@echo "make test        run the tests, on TensorFlow"
	@echo "make test-slow   run those that take long"
	@echo "make test-jax    the same on JAX"
	@echo "make test-torch  the same on PyTorch"
	@echo "make lint        check the style of the code"
	@echo "make wheel-test  build the wheel, install it in a fresh environment, use it elsewhere"
	@echo "make clean       remove the environments and what was built"

demo: .venv/ready
	KERAS_BACKEND=tensorflow .venv/bin/keras-adaptive demo

test: .venv/ready
	KERAS_BACKEND=tensorflow .venv/bin/python -m pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS)

test-slow: .venv/ready
	KERAS_BACKEND=tensorflow .venv/bin/python -m pytest -n $(WORKERS) -m slow $(PYTEST_ARGS)

test-jax: .venv-jax/ready
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS)

test-torch: .venv-torch/ready
	KERAS_BACKEND=torch .venv-torch/bin/python -m pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS)

lint: .venv/ready
	.venv/bin/python -m ruff check .

wheel-test:
	rm -rf build dist
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	.venv-wheel/bin/python -m pip install --quiet "$$(echo dist/*.whl)[$(WHEEL_BACKEND),onnx]"
	cd tests/wheel && KERAS_BACKEND=$(WHEEL_BACKEND) \
	  ../../.venv-wheel/bin/python check_wheel.py

clean:
	rm -rf .venv .venv-jax .venv-torch .venv-wheel build dist *.egg-info

# Installed once; again when the requirements change.
.venv/ready: BACKEND = $(TENSORFLOW)
.venv-jax/ready: BACKEND = $(JAX)
.venv-torch/ready: BACKEND = $(TORCH)
.venv/ready .venv-jax/ready .venv-torch/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(BACKEND)
	$(@D)/bin/python -m pip install --quiet -e ".[data,onnx,openvino,plot,test]"
	touch $@
