# make demo             set up, then train, sample and reconstruct with a small model
# make test             set up and run the tests; make quick: those not marked slow
# make lint             check style and format
# make attack SEED=7    feed broken files to every reader for a minute
# make doctor           check and time the toolkit on this machine
# make docs             regenerate the flag tables in docs/
# make gallery          redraw the pictures of README and docs from the included models and the data in VAE_DATA_DIR
# make film             the same, and the animation of the explorer
#
# Needs only Python 3.10 or newer; everything else is installed into VENV.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
RUN = $(VENV)/bin/python
DEMO = demo
DEMO_FLAGS = --limit 8000 --epochs 10
MODEL = $(DEMO)/vae_synthetic_filters_0032_dims_0008.npz

.PHONY: demo test quick lint attack doctor docs gallery film clean

demo: $(VENV)/installed
	$(RUN) train.py --dataset synthetic --image_size 32 --max_filters 32 $(DEMO_FLAGS) --outdir $(DEMO)
	$(RUN) generate.py --model $(MODEL) --outfile $(DEMO)/samples.png
	$(RUN) reconstruct.py --model $(MODEL) --rec_testdata --limit 256 --outdir $(DEMO)/reconstructions
	@echo "Look at $(DEMO)/samples.png and $(DEMO)/reconstructions/synthetic_test/0008_latent_dims/overview.png"

test: $(VENV)/installed-dev
	OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -q -n auto --dist worksteal

quick: $(VENV)/installed-dev
	OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -q -n auto --dist worksteal -m "not slow"

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

SEED ?= 0

attack: $(VENV)/installed
	$(RUN) bench/attack.py --seconds 60 --seed $(SEED)

doctor: $(VENV)/installed
	$(RUN) doctor.py

docs: $(VENV)/installed
	$(RUN) docs/tables.py

MNIST_2 = pretrained/vae_mnist_filters_0064_dims_0002.npz
CLASSES = pretrained/conditional/vae_mnist_filters_0064_dims_0008.npz
CIFAR = pretrained/vae_cifar-10_filters_0128_dims_0128.npz

gallery: $(VENV)/installed
	$(RUN) generate.py --outfile assets/samples_mnist.png --overwrite
	$(RUN) generate.py --prior normal --outfile assets/samples_normal_mnist.png --overwrite
	$(RUN) generate.py --model $(MNIST_2) --vis_lat_space --outfile assets/latent_square_mnist.png --overwrite
	$(RUN) generate.py --model $(CIFAR) --outfile assets/samples_cifar-10.png --overwrite
	$(RUN) visualize.py samples --model $(CLASSES) --outfile assets/classes_mnist.png --overwrite
	$(RUN) visualize.py latents --model $(MNIST_2) --outfile assets/latents_mnist.png --overwrite
	$(RUN) visualize.py traversal --outfile assets/traversal_mnist.png --overwrite
	$(RUN) visualize.py interpolate --rows 3 --outfile assets/interpolate_mnist.gif --overwrite
	$(RUN) visualize.py reconstructions --outfile assets/reconstructions_mnist.png --overwrite
	$(RUN) visualize.py reconstructions --model $(CIFAR) --outfile assets/reconstructions_cifar-10.png --overwrite
	$(RUN) visualize.py explorer --outfile assets/explorer.html --overwrite
	$(RUN) visualize.py explorer --model $(CLASSES) --outfile assets/explorer_conditional.html --overwrite

film: gallery # needs a Chromium and its driver
	$(RUN) bench/film.py assets/explorer.html assets/explorer.gif

clean:
	rm -rf $(VENV) $(DEMO)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 or newer found — install one, or run make PYTHON=PATH" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
