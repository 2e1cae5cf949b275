"""The optimizers against their definitions, and the recipes that choose them."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from sample_models import make_model

from toolkit.errors import UserError
from toolkit.training import optimizers
from toolkit.training.plan import RECIPES, make_plan, remembered


def test_muon_turns_the_gradient_of_a_kernel_into_an_orthogonal_step():
    random = np.random.default_rng(0)
    kernel, gradient = (mx.array(random.normal(size=(8, 3, 3, 4)).astype(np.float32)) for _ in range(2))
    muon = optimizers.Muon(0.5, 0.1)
    muon.init({"weight": kernel})
    moved = muon.apply_gradients({"weight": gradient}, {"weight": kernel})["weight"]
    step = (np.array(moved) - (1 - 0.5 * 0.1) * np.array(kernel)).reshape(8, -1)  # besides the decay
    left, _, right = np.linalg.svd(np.array(gradient).reshape(8, -1), full_matrices=False)
    strengths = np.diag(left.T @ -step @ right.T) / 0.5
    assert ((strengths > 0.6) & (strengths < 1.3)).all()  # five steps of Newton and Schulz come near to 1
    assert np.linalg.norm(step + 0.5 * left @ np.diag(strengths) @ right) < 1e-3


@pytest.mark.parametrize("shape", [(8, 3, 3, 4), (6, 100), (100, 6), (5, 5), (9, 1, 1, 1)])
def test_muon_is_that_of_mlx_in_fewer_products(shape, form):
    random = np.random.default_rng(0)
    weight, gradient = ({"a": mx.array(random.normal(size=shape).astype(np.float32))} for _ in range(2))
    ours, theirs = optimizers.Muon(0.5, 0), optim.Muon(0.5, weight_decay=0)
    for _ in range(3):
        after, expected = (one.apply_gradients(gradient, weight)["a"] for one in (ours, theirs))
        np.testing.assert_allclose(after, expected, atol=1e-4)


@pytest.mark.parametrize("arch, count", [("conv", 6), ("resnet", 23)])
def test_muon_trains_kernels_and_hidden_layers_and_adamw_the_rest(arch, count):
    model = make_model(arch=arch)
    optimizer = optimizers.make(make_tiny_plan().train)
    optimizer.init(model.trainable_parameters())
    muon, adamw = optimizer.optimizers
    held = [{path.rpartition(".")[0] for path, _ in tree_flatten(part.state)} for part in (muon, adamw)]
    weights = {path: a for path, a in tree_flatten(model.trainable_parameters()) if path.endswith(".weight")}
    kernels = {path for path, array in weights.items() if array.ndim == 4 or "hidden" in path}
    assert held[0] - {""} == kernels and len(kernels) == count and not held[1] & kernels
    optimizers.set_rate(optimizer, 0.25)
    assert muon.learning_rate.item() == 0.5 and adamw.learning_rate.item() == 0.25
    still = optimizer.apply_gradients(tree_map(mx.zeros_like, model.trainable_parameters()), model)
    for path, array in tree_flatten(still):
        before = dict(tree_flatten(model.parameters()))[path]
        expected = before * (1 - 0.5 * 0.05 * (path in kernels))
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-20, err_msg=path)


def make_tiny_plan(arch="conv", **options):
    return make_plan(options | {"arch": arch})


def test_a_recipe_is_what_flags_leave_open():
    assert make_tiny_plan() == make_tiny_plan(recipe="fast", **RECIPES["fast"] | {"lr": 0.01})
    assert make_tiny_plan("mlp").train.optimizer == "adamw" and make_tiny_plan("mlp", lr=0.5).train.lr == 0.5
    with pytest.raises(UserError, match="no kernels"):
        make_tiny_plan("mlp", optimizer="muon")
    classic = make_tiny_plan(recipe="classic", lr=0.3).train
    assert (classic.optimizer, classic.lr, classic.lr_schedule, classic.batchsize) == ("adamw", 0.3, "constant", 128)
    made = optimizers.make(classic)
    assert type(made) is optimizers.AdamW and made.weight_decay == 0.01


def test_a_plan_leaves_nothing_open():
    for options in ({}, {"arch": "mlp"}, {"recipe": "classic", "objective": "iwae"}):
        open_yet = {name for name, value in make_plan(options).options().items() if value is None}
        assert open_yet <= {"limit", "channels", "depth", "decoder_filters", "label_planes", "embed_factor"}
        assert remembered(make_plan(options).options()) == make_plan(options)


def test_runs_older_than_recipes_go_on_as_they_began():
    before = make_tiny_plan(recipe="classic", lr=0.002, epochs=7).options()
    for name in ("recipe", "optimizer", "lr_warmup"):
        del before[name]
    before |= {"iw_samples": 8, "iw_warmup": 0}  # of another objective, as older states have them
    asked = make_tiny_plan(epochs=9, optimizer="muon")
    plan = asked.resumed(["epochs"], before)
    assert plan == make_tiny_plan(recipe="classic", lr=0.002, epochs=9)
    with pytest.raises(UserError, match="--optimizer muon contradicts the run to resume, which has adamw"):
        asked.resumed(["optimizer"], before)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_without_gradients_leave_no_subnormal_numbers_in_the_state(name):
    """CPUs compute with numbers below 1.2e-38 many times more slowly; a black border has many such weights."""
    weight = {"conv": {"weight": mx.ones((4, 1, 1, 4)), "hidden": mx.ones((4,))}}
    optimizer = optimizers.make(make_plan({"optimizer": name, "weight_decay": 0}).train)
    optimizer.init(weight)
    gradients = tree_map(lambda array: 1e-3 * mx.ones_like(array), weight)
    for _ in range(2000):
        weight = optimizer.apply_gradients(gradients, weight)
        gradients = tree_map(mx.zeros_like, weight)
        mx.eval(weight, optimizer.state)
    arrays = [np.abs(np.array(a)) for key, a in tree_flatten(optimizer.state) if a.size == 16 or a.size == 4]
    assert len(arrays) >= 2
    for array in arrays:
        assert (array[array > 0] > 1.2e-38).all()
