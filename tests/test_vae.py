"""The model against independent NumPy, and its compiled functions against themselves uncompiled."""

import re

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image
from sample_models import make_model, random_images, split_keys

import vae
from toolkit.architectures import ARCHITECTURES, ModelConfig, activations, build, config_of, layers
from toolkit.errors import UserError
from toolkit.layers import cpu, forms, plain
from toolkit.model import inputs, likelihoods
from toolkit.model.objectives import Elbo
from toolkit.random import pixel_keys
from toolkit.shell.opening import ROOT


@pytest.fixture(autouse=True)
def form_of_the_device():
    yield
    forms.choose()


def test_parameter_count_of_the_default_model():
    assert build(ModelConfig()).parameter_count() == 149_265


@pytest.mark.parametrize("size, channels, filters, dims", [(64, 1, 64, 8), (16, 3, 8, 3), (8, 2, 10, 1)])
def test_agrees_with_numpy(size, channels, filters, dims):
    model = make_model(image_size=size, channels=channels, max_filters=filters, latent_dims=dims)
    weights = {key: np.array(array, np.float64) for key, array in tree_flatten(model.parameters())}
    x = np.random.default_rng(1).random((3, size, size, channels), np.float32)
    mean, log_var = model.encoder(mx.array(x))
    expected_mean, expected_log_var = numpy_encoder(weights, x)
    np.testing.assert_allclose(np.array(mean), expected_mean, atol=1e-4)
    np.testing.assert_allclose(np.array(log_var), expected_log_var, atol=1e-4)
    logits = model.decoder(mean)
    assert logits.shape == x.shape
    np.testing.assert_allclose(np.array(logits), numpy_decoder(weights, expected_mean), atol=1e-4)


def numpy_conv(x, weight, bias, stride=1):
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    out = np.zeros((len(x), height // stride, width // stride, len(weight)))
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + height : stride, j : j + width : stride] @ weight[:, i, j].T
    return out + bias


def numpy_norm(x, weights, name):
    mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    y = (x - mean) / np.sqrt(var + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return np.where(y > 0, y, 0.01 * y)


def numpy_encoder(weights, x):
    h = x
    for i in (1, 2, 3):
        conv = f"encoder.conv{i}"
        h = numpy_conv(h, weights[f"{conv}.weight"], weights[f"{conv}.bias"], stride=2)
        h = numpy_norm(h, weights, f"encoder.bn{i}")
    h = h.reshape(len(h), -1)
    return [h @ weights[f"encoder.{p}.weight"].T + weights[f"encoder.{p}.bias"] for p in ("proj_mu", "proj_log_var")]


def numpy_decoder(weights, z):
    h = z @ weights["decoder.lin1.weight"].T + weights["decoder.lin1.bias"]
    filters = weights["decoder.upconv1.conv.weight"].shape[3]
    grid = int(np.sqrt(h.shape[1] // filters))
    h = h.reshape(len(h), grid, grid, filters)
    for i in (1, 2, 3):
        h = h.repeat(2, axis=1).repeat(2, axis=2)
        conv = f"decoder.upconv{i}.conv"
        h = numpy_conv(h, weights[f"{conv}.weight"], weights[f"{conv}.bias"])
        if i < 3:
            h = numpy_norm(h, weights, f"decoder.bn{i}")
    return h


def test_bound_agrees_with_numpy():
    random = np.random.default_rng(2)
    x, logits = random.random((4, 8, 8, 1)), random.normal(0, 3, (4, 8, 8, 1))
    mean, log_var = random.normal(size=(4, 5)), random.normal(size=(4, 5))
    model = make_model(image_size=8, latent_dims=5)
    x, output, mu, rho = (mx.array(a.astype(np.float32)) for a in (x, logits, mean, log_var))
    terms = model.likelihood.error(x, output), model.prior.kl(mu, rho).sum(axis=1)
    pixels = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(np.array(terms[0]), ((pixels - np.array(x)) ** 2).sum(axis=(1, 2, 3)), rtol=1e-5)
    variance = np.exp(log_var)
    np.testing.assert_allclose(
        np.array(terms[1]), 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(axis=1), rtol=1e-4
    )


def test_bce_agrees_with_numpy_at_any_logit():
    random = np.random.default_rng(2)
    x, logits = random.random((4, 8, 8, 3)), random.normal(0, 4, (4, 8, 8, 3))
    logits[0], logits[1] = 100, -100
    x[2] = x[2] > 0.5
    model = make_model(image_size=8, channels=3, likelihood="bce")
    error = model.likelihood.error(*(mx.array(a.astype(np.float32)) for a in (x, logits)))
    expected = x * np.logaddexp(0, -logits) + (1 - x) * np.logaddexp(0, logits)
    np.testing.assert_allclose(np.array(error), expected.sum(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("size, channels", [(28, 1), (5, 3)])
def test_fully_connected_agrees_with_numpy(classes, size, channels):
    model = make_model(arch="mlp", image_size=size, channels=channels, num_classes=classes, max_filters=24)
    w = {key: np.array(array, np.float64) for key, array in tree_flatten(model.parameters())}
    assert w["encoder.lin2.weight"].shape == (3, 24)  # D's widths are 512 and 64
    x = np.random.default_rng(1).random((3, size, size, channels), np.float32)
    labels = np.array([2, 0, 3])
    one_hot = np.eye(classes)[labels] if classes else np.zeros((3, 0))

    def dense(h, name):
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    h = np.concatenate([x.reshape(3, -1), one_hot], axis=1)
    for name in ("encoder.lin1", "encoder.lin2"):
        h = np.maximum(dense(h, name), 0)
    mean, log_var = model.encoder(mx.array(x), mx.array(labels))
    np.testing.assert_allclose(np.array(mean), dense(h, "encoder.proj_mu"), atol=1e-4)
    np.testing.assert_allclose(np.array(log_var), dense(h, "encoder.proj_log_var"), atol=1e-4)
    h = np.concatenate([dense(h, "encoder.proj_mu"), one_hot], axis=1)
    for name in ("decoder.lin1", "decoder.lin2"):
        h = np.maximum(dense(h, name), 0)
    logits = model.decoder(mean, mx.array(labels))
    np.testing.assert_allclose(np.array(logits), dense(h, "decoder.lin3").reshape(x.shape), atol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_labels_reach_encoder_and_decoder(arch):
    model = make_model(arch=arch, num_classes=3, max_filters=16)
    x, z = mx.full((2, 16, 16, 1), 0.5), mx.zeros((2, 3))
    functions = [lambda labels: model.encoder(x, labels)[0]]
    if model.config.decoder_classes:
        functions.append(lambda labels: model.decoder(z, labels))
    else:
        np.testing.assert_array_equal(np.array(model.decoder(z)), np.array(model.decoder(z, mx.array([1, 2]))))
    for function in functions:
        same, other = np.array(function(mx.array([1, 1]))), np.array(function(mx.array([1, 2])))
        np.testing.assert_array_equal(same[0], same[1])
        assert (other[0] != other[1]).any()


def weights_after(model, **options):
    """All weights after one step of plain gradient descent."""
    beta = options.pop("beta", 1.0)
    optimizer = optim.SGD(learning_rate=1e-2)
    optimizer.init(model.trainable_parameters())
    model.train()
    vae.training_step(model, optimizer, Elbo(**options))(random_images(19), None, split_keys(19), mx.array(beta))
    return {key: np.array(array) for key, array in tree_flatten(model.trainable_parameters())}


def test_beta_weighs_kl_and_nothing_else():
    gone, half, whole = (weights_after(make_model(), beta=beta) for beta in (0.0, 0.5, 1.0))
    for key in gone:
        np.testing.assert_allclose(half[key], (gone[key] + whole[key]) / 2, atol=1e-5, err_msg=key)
        changes = np.abs(whole[key] - gone[key]).max()
        assert changes < 1e-6 if key.startswith("decoder") else True, key
    assert np.abs(whole["encoder.proj_mu.weight"] - gone["encoder.proj_mu.weight"]).max() > 1e-5


def test_free_bits_make_kl_below_them_free():
    nothing_counts = weights_after(make_model(), free_bits=1e6)
    no_kl = weights_after(make_model(), beta=0.0)
    all_counts, plain = weights_after(make_model(), free_bits=1e-9), weights_after(make_model())
    for key in plain:
        np.testing.assert_allclose(nothing_counts[key], no_kl[key], atol=1e-6, err_msg=key)
        np.testing.assert_allclose(all_counts[key], plain[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("likelihood", likelihoods.LIKELIHOODS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_forms_of_the_layers_compute_the_same(arch, likelihood):
    """The form that a GPU runs, run here on the CPU: same reconstructions, same step."""
    images = random_images(19)
    results = []
    for form in (plain, cpu):
        forms.choose(form)
        model = make_model(arch=arch, likelihood=likelihood)
        seen = [np.array(model.reconstruct(images))]
        optimizer = optim.SGD(learning_rate=1e-3)
        optimizer.init(model.trainable_parameters())
        model.train()
        seen.append(np.array(vae.training_step(model, optimizer)(images, None, split_keys(19), 1)))
        seen += [np.array(array) for _, array in tree_flatten(model.parameters())]
        results.append(seen)
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_residual_blocks_begin_as_identities_and_keep_the_size_of_features():
    model = build(config_of({"arch": "resnet", "image_size": 20, "depth": 4, "max_filters": 16, "channels": 3}))
    h = mx.random.normal((8, 5, 5, 16))
    np.testing.assert_array_equal(np.array(cpu.join(cpu.split(model.decoder.blocks1[3](h)))), np.array(h))
    assert 0.5 < model.encoder.down2(model.encoder.down1(mx.random.normal((8, 20, 20, 3)))).std().item() < 3
    assert len(model.encoder.blocks1) == len(model.decoder.blocks2) == 4


@pytest.mark.parametrize("kind, factor, value", [("cat", 0.5, [1.0]), ("one_hot", 2.0, [0, 0, 2.0])])
def test_the_planes_of_a_label(kind, factor, value):
    model = make_model(arch="bounded", num_classes=3, label_planes=kind, embed_factor=factor)
    seen = np.array(model.encoder.with_planes(mx.full((2, 16, 16, 1), 0.25), mx.array([2, 0])))
    assert seen.shape == (2, 16, 16, 1 + len(value)) and (seen[..., 0] == 0.25).all()
    assert (seen[0, ..., 1:] == value).all()
    with pytest.raises(ValueError, match="give a label"):
        model.encoder(mx.zeros((2, 16, 16, 1)))


def test_bounds_stay_within_theirs():
    """However far a step goes; and a scale that has left them can come back."""
    model = make_model(arch="bounded")
    x = random_images(4)
    for scale, bound in ((0.3, 1), (50.0, 50), (400.0, 100)):
        model.encoder.mu_scale, model.encoder.logv_scale = mx.array(scale), mx.full((1, 3), scale)
        mean, log_var = model.encoder(x)
        assert (mx.abs(mean) <= bound).all() and (mx.exp(log_var) <= bound + 1e-5).all()

        def furthest(value):
            model.encoder.mu_scale = value
            return mx.abs(model.encoder(x)[0]).max()

        assert mx.grad(furthest)(mx.array(scale)).item() > 0


@pytest.mark.parametrize(
    "config, error",
    [
        ({"arch": "bounded", "image_size": 20}, "not a multiple of 8 — use 16 or 24"),
        ({"arch": "conv", "label_planes": "cat"}, "unknown option 'label_planes'"),
        ({"arch": "resnet", "image_size": 30}, "not a multiple of 4 — use 28 or 32"),
        ({"arch": "resnet", "max_filters": 1}, "must be 2 or more"),
        ({"arch": "conv", "depth": 2}, "unknown option 'depth'"),
    ],
)
def test_residual_configurations_that_cannot_be(config, error):
    with pytest.raises((UserError, ValueError), match=error):
        config_of(config)


def test_sample_has_the_asked_mean_and_variance():
    mean, log_var = mx.full((20_000, 2), 3.0), mx.full((20_000, 2), 2 * np.log(0.5))
    z = np.array(vae.sample(mean, log_var, mx.random.key(0)))
    np.testing.assert_allclose(z.mean(axis=0), 3, atol=0.02)
    np.testing.assert_allclose(z.std(axis=0), 0.5, atol=0.02)


@pytest.mark.parametrize("new_size", [64, 24, 16, 8])
def test_resizing_agrees_with_pillow(new_size):
    image = np.random.default_rng(3).integers(0, 256, (28, 20), dtype=np.uint8)
    ours = np.array(inputs.to_floats(mx.array(image[None, :, :, None]), ModelConfig(image_size=new_size)))[0, :, :, 0]
    pillow = Image.fromarray(image.astype(np.float32)).resize((new_size, new_size), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(ours, np.array(pillow) / 255, atol=1e-5)


def test_colours_are_made_and_left_out_as_by_pillow():
    colours = np.random.default_rng(4).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    grey = np.array(Image.fromarray(colours).convert("L"))
    made = np.array(inputs.to_floats(mx.array(colours[None]), ModelConfig(image_size=16, channels=1)))
    np.testing.assert_allclose(made[0, :, :, 0] * 255, grey, atol=0.51)
    made = np.array(inputs.to_floats(mx.array(grey[None, :, :, None]), ModelConfig(image_size=16, channels=3)))
    assert made.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(made, np.repeat(grey[None, :, :, None], 3, axis=3) / 255, atol=1e-6)


def test_threshold_is_above_128():
    every_byte = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = inputs.to_floats(mx.array(every_byte), ModelConfig(image_size=16, binarize="threshold"))
    np.testing.assert_array_equal(np.array(x), every_byte > 128)
    smaller = inputs.to_floats(mx.array(every_byte), ModelConfig(image_size=8, binarize="threshold"))
    assert set(np.array(smaller).flatten()) == {0, 1}


def test_dynamic_draws_have_the_right_chance_and_are_fixed_by_the_number_of_an_image():
    config = ModelConfig(image_size=16, binarize="dynamic")
    images = mx.array(np.full((500, 16, 16, 1), 51, np.uint8))
    numbers = mx.arange(500, dtype=mx.uint32)
    x = np.array(inputs.to_floats(images, config, pixel_keys(numbers)))
    assert set(x.flatten()) == {0, 1} and x.mean() == pytest.approx(0.2, abs=0.005)
    assert len({image.tobytes() for image in x}) == 500
    some = np.array(inputs.to_floats(images[:3], config, pixel_keys(numbers[100:103])))
    np.testing.assert_array_equal(some, x[100:103])  # in whatever batch it comes


def make_step(model):
    optimizer = optim.AdamW(learning_rate=0.0)  # weights stay, so that only the noise can make a difference
    optimizer.init(model.trainable_parameters())
    return vae.training_step(model, optimizer)


def test_compiled_step_draws_new_noise_every_time():
    mx.enable_compile()
    try:
        model = make_model()
        model.train()
        step = make_step(model)
        images = random_images(6)
        first, second, again = (step(images, None, split_keys(6, seed), 1).tolist() for seed in (1, 2, 1))
    finally:
        mx.disable_compile()
    assert first[0] != second[0]
    assert first == again
    plain = make_step(model)(images, None, split_keys(6, 1), 1).tolist()
    np.testing.assert_allclose(first, plain, rtol=1e-4)


def test_training_step_changes_weights_and_statistics():
    model = make_model()
    before = {key: np.array(array) for key, array in tree_flatten(model.parameters())}
    optimizer = optim.AdamW(learning_rate=0.01)
    optimizer.init(model.trainable_parameters())
    model.train()
    vae.training_step(model, optimizer)(random_images(5), None, split_keys(5), 1)
    normed = {"encoder.conv1.bias", "encoder.conv2.bias", "encoder.conv3.bias"}  # batch norm takes these away
    normed |= {"decoder.upconv1.conv.bias", "decoder.upconv2.conv.bias"}
    for key, array in tree_flatten(model.parameters()):
        if key not in normed:
            assert (np.array(array) != before[key]).any(), f"{key} stayed as it was"


def test_inference_does_not_depend_on_the_batch():
    model = make_model()
    images, reconstruct = random_images(7), model.reconstruct
    together = np.array(reconstruct(images))
    apart = np.concatenate([np.array(reconstruct(images[i : i + 1])) for i in range(7)])
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_inference_follows_the_weights(compiled):
    if compiled:
        mx.enable_compile()
    try:
        check_inference_follows_the_weights()
    finally:
        mx.disable_compile()


def check_inference_follows_the_weights():
    model = make_model()
    decode = model.decode
    z = mx.zeros((1, 3))
    before = np.array(decode(z))
    model.decoder.upconv3.conv.bias = model.decoder.upconv3.conv.bias + 1
    assert (np.array(decode(z)) > before).all()


@pytest.mark.parametrize(
    "numbers",
    [{"image_size": 60}, {"image_size": 4}, {"max_filters": 3}, {"max_filters": 10**6}, {"latent_dims": 10**7}],
)
def test_impossible_configurations_are_refused(numbers):
    with pytest.raises(UserError):
        build(ModelConfig(**numbers))


def test_every_field_of_the_configuration_is_checked():
    for wrong in ({"arch": "x"}, {"likelihood": "x"}, {"binarize": "x"}, {"channels": 0}, {"num_classes": -1}):
        with pytest.raises(UserError):
            ModelConfig(**wrong)
    assert ModelConfig(arch="mlp").max_filters == 512 and ModelConfig().max_filters == 64


def test_compiled_functions_are_made_once(model):
    assert model.decode is model.decode and model.encode is model.encode


def test_a_log_variance_that_runs_away_costs_no_run():
    """As they are up to 1; beyond, the variance and so KL grow linearly, and gradients stay finite."""
    model = make_model()
    model.encoder.proj_log_var.bias = mx.array([-5.0, 1.0, 80.0])
    model.encoder.proj_log_var.weight *= 0
    x = mx.zeros((2, 16, 16, 1))
    _, log_var = model.posterior(x)
    np.testing.assert_allclose(np.array(log_var), [[-5, 1, 1 + np.log(80)]] * 2, rtol=1e-6)

    def loss(bias):
        model.encoder.proj_log_var.bias = bias
        return sum(term.sum() for term in model.terms(x, None, split_keys(2)))

    value, gradient = mx.value_and_grad(loss)(mx.array([-5.0, 1.0, 80.0]))
    assert value.item() < 1e4 and np.isfinite(np.array(gradient)).all() and np.abs(np.array(gradient)).max() < 1e3


def test_it_imports_mlx_and_the_few_rooms_that_a_reader_needs():
    text = (ROOT / "vae.py").read_text()
    ours = re.findall(r"^from (toolkit\S*) import (.*)$", text, re.M)
    assert [module for module, _ in ours] == [
        *("toolkit.layers", "toolkit.model.likelihoods", "toolkit.model.priors", "toolkit.random")
    ]
    assert len(text.splitlines()) <= 220 and "Any" not in text and "option(" not in text


def test_layers_are_recorded_as_they_are_called():
    model = make_model(num_classes=2)
    encoder, decoder = layers(model)
    assert [call.name for call in encoder] == ["down", "down", "down", "flatten", "append_labels", "heads"]
    assert [call.name for call in decoder] == ["append_labels", "dense", "reshape", "up", "up", "up"]
    assert encoder[0].modules == [model.encoder.conv1, model.encoder.bn1] and encoder[0].shape == (1, 8, 8, 2)
    assert activations(model) > 16 * 16
