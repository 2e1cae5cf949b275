"""The images that training sees: passes over all of them, full batches, pictures mirrored and shifted."""

import re

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from toolkit import datasets
from toolkit.datasets import Split
from toolkit.formats import checkpoint
from toolkit.training import stream
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer

LONG_EPOCHS = datasets.ROWS["folder"]  # as they are outside of tests
SMALL = {"image_size": 16, "max_filters": 8, "latent_dims": 2}


@pytest.fixture
def scenes(tmp_path):
    """A folder of 24 pictures that differ."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((24, 16), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("count, batch", [(10, 4), (10, 10), (3, 7), (1, 1)])
def test_batches_are_shuffled_passes_one_after_another(count, batch):
    seen = np.concatenate([stream.numbers(5, count, batch, step) for step in range(30)])
    assert len(seen) == 30 * batch
    passes = [seen[i : i + count].tolist() for i in range(0, len(seen) - count + 1, count)]
    assert all(sorted(one) == list(range(count)) for one in passes)
    assert count == 1 or len({tuple(one) for one in passes}) > 1
    other = np.concatenate([stream.numbers(6, count, batch, step) for step in range(30)])
    assert count == 1 or seen.tolist() != other.tolist()


def test_an_epoch_is_a_pass_but_has_enough_steps():
    assert stream.steps_per_epoch(1000, 64, 1) == 16 and stream.steps_per_epoch(54, 54, 60) == 60
    assert stream.steps_per_epoch(12_000, 64, 60) == 188


def test_augmented_images_are_mirrored_and_shifted_by_image_and_step():
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    chosen = np.arange(40)

    def is_one_of(found, image, most):
        moves = [(y, x) for y in range(-most, most + 1) for x in range(-most, most + 1)]
        edged = np.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
        shifted = [edged[most + y : most + y + 32, most + x : most + x + 32] for y, x in moves]
        return [(*move, turned) for move, one in zip(moves, shifted, strict=True) for turned in (0, 1)
                if (found == (one[:, ::-1] if turned else one)).all()]  # fmt: skip

    for kind, most in (("mirror", 0), ("crop", 2)):
        first, again, later = (stream.augment(images, kind, 7, chosen, step) for step in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert (first != later).any()
        (found,) = zip(*(is_one_of(one, image, most) for one, image in zip(first, images, strict=True)), strict=True)
        ways = {(y, x) for y, x, _ in found}
        assert len(ways) == 1 if kind == "mirror" else len(ways) > 10
        assert 5 < sum(turned for *_, turned in found) < 35
        # An image is changed in the same way wherever it stands in a batch.
        np.testing.assert_array_equal(stream.augment(images[5:9], kind, 7, chosen[5:9], 3), first[5:9])
    assert (stream.augment(images, "none", 7, chosen, 3) == images).all()


def test_few_pictures_are_shown_often_and_the_run_says_so(run, scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.ROWS, "folder", LONG_EPOCHS)
    flags = ["--image_size", 16, "--max_filters", 8, "--epochs", 0.2, "--data_dir", tmp_path / "data", "--outdir"]
    status, out, _ = run("train", scenes, *flags, tmp_path / "a")
    count = int(re.search(r"(\d+) training", out)[1])
    assert status == 0 and f"{count} pictures are few: each epoch shows them 60 times, mirrored and shifted" in out
    assert "Epochs: 0.2 of 60 steps" in out and "24 not square" not in out
    assert f"{count} pictures are not square: cropped" in out
    _, out, _ = run("train", scenes, *flags, tmp_path / "b", "--augment", "none", "--fit", "pad")
    assert "shows them 60 times\n" in out and "padded with white" in out
    assert "Hint" not in run("train", "--dataset", "synthetic", "--limit", 20, *flags, tmp_path / "c")[1]


def test_scores_see_the_pictures_as_they_are(scenes, tmp_path):
    splits = [datasets.load(f"folder:{scenes}", split, tmp_path, image_size=16) for split in ("train", "test")]
    scores = []
    for augment in ("none", "crop"):
        trainer = Trainer(make_plan(SMALL | {"dataset": f"folder:{scenes}", "augment": augment}), *splits)
        batch = next(trainer.batches())
        whole = set(map(bytes, splits[0].images[:]))
        assert {bytes(one) for one in np.array(batch.images)} <= whole or augment == "crop"
        assert augment == "none" or not {bytes(one) for one in np.array(batch.images)} <= whole
        scores.append(trainer.score(trainer.test, np.arange(len(trainer.test.images))))
    assert scores[0] == scores[1]


@pytest.mark.parametrize("first", [0.4, 1, 1.6])
def test_a_run_of_pictures_can_end_anywhere_and_be_resumed_with_the_same_bits(run, scenes, tmp_path, first):
    """Interrupted after a whole epoch it is bit-identical; a run that ended within an epoch goes on from there."""
    flags = ["--image_size", 16, "--max_filters", 8, "--lr_schedule", "constant", "--lr_warmup", 7]
    flags += ["--data_dir", tmp_path / "data", "--outdir"]
    run("train", scenes, *flags, tmp_path / "whole", "--epochs", 2)
    run("train", scenes, *flags, tmp_path / "parts", "--epochs", first)
    status, out, _ = run("train", scenes, *flags, tmp_path / "parts", "--epochs", 2, "--resume")
    assert status == 0 and f"Resuming after epoch {first}" in out
    (a,), (b,) = ((tmp_path / name).glob("*.npz") for name in ("whole", "parts"))
    assert a.read_bytes() == b.read_bytes() or first != 1
    for (key, ours), (_, theirs) in zip(
        *(tree_flatten(checkpoint.load(path).model.parameters()) for path in (a, b)), strict=True
    ):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs), err_msg=key)


def test_few_pictures_do_not_make_the_loss_explode(monkeypatch):
    """No mean of 20 steps lies above the loss of the first step."""
    monkeypatch.setitem(datasets.ROWS, "folder", LONG_EPOCHS)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    split = Split(pixels, None, len(pixels))
    trainer, losses = Trainer(make_plan(SMALL | {"dataset": "folder:/x", "epochs": 2}), split, split), []
    while trainer.steps < trainer.horizon:
        before = 0
        for batch in trainer.batches():
            trainer.step(batch)
            losses.append(trainer.progress.totals[0] - before)
            before = trainer.progress.totals[0]
    assert len(losses) == 120
    assert np.convolve(losses, np.ones(20) / 20, "valid").max() < losses[0]
    assert mx.isfinite(trainer.model.encoder.conv1.weight).all()
