"""The choice of a recipe by a dataset's images."""

from dataclasses import replace

import pytest
import torch

from pipeline.errors import UserError
from pipeline.models import networks
from pipeline.recipes.auto_preset import ANY_DATASET, DataFacts, choose_preset
from pipeline.recipes.presets import PART1, Preset
from pipeline.training import optim

FACTS = DataFacts(colour=True, height=400, width=500, classes=5, images=400)
MANY = (1, 5, 33, 400, 3_000, 60_000, 1_000_000)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (DataFacts(True, 400, 500, 5, 400), "photos"),
        (DataFacts(True, 32, 32, 10, 50_000), "small-images"),
        (DataFacts(True, 49, 20, 10, 500), "photos"),
        (DataFacts(False, 28, 28, 10, 60_000), "small-images"),
        (DataFacts(False, 900, 1200, 62, 2_000), "handwriting"),
        (DataFacts(False, 41, 41, 10, 2_000), "handwriting"),
    ],
)
def test_it_is_chosen_by_colour_and_size(facts: DataFacts, expected: str) -> None:
    assert choose_preset(facts)[0] == expected


@pytest.mark.parametrize("name", ANY_DATASET)
def test_a_named_recipe_is_taken_for_any_dataset(name: str) -> None:
    for facts in (FACTS, replace(FACTS, colour=False), replace(FACTS, height=28, width=28)):
        assert choose_preset(facts, name)[0] == name


def test_an_unknown_recipe() -> None:
    with pytest.raises(
        UserError, match="'fast', expected one of auto, small-images, photos, handwriting"
    ):
        choose_preset(FACTS, "fast")


@pytest.mark.parametrize("name", ANY_DATASET)
def test_few_images_get_more_epochs_and_many_get_some(name: str) -> None:
    epochs = [choose_preset(replace(FACTS, images=n), name)[1].recipe.epochs for n in MANY]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (100, 8)


@pytest.mark.parametrize("name", ANY_DATASET)
@pytest.mark.parametrize("images", MANY)
def test_batches_and_trials_fit_the_dataset(name: str, images: int) -> None:
    preset = choose_preset(replace(FACTS, images=images), name)[1]
    trial = preset.trial
    assert preset.recipe.batch_size <= images
    assert trial.train_images is not None
    assert preset.recipe.batch_size <= trial.train_images <= images
    assert trial.epochs <= preset.recipe.epochs
    assert trial.epochs * trial.train_images <= 15_000


@pytest.mark.parametrize("side", [1, 9, 28, 40, 48, 300])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("name", ANY_DATASET)
def test_the_network_takes_the_images(name: str, colour: bool, side: int) -> None:
    facts = DataFacts(colour, 2 * side, side, 5, 400)
    preset = choose_preset(facts, name)[1]
    (stage,) = preset.recipe.stages
    shape = (3 if colour else 1, stage.size, max(16, stage.size // 2))
    assert networks.build(preset.network, 5, 0, shape)(torch.rand(2, *shape)).shape == (2, 5)


def test_handwriting_is_part_1s_recipe_without_writers_and_auxiliary_pages() -> None:
    preset = choose_preset(replace(FACTS, colour=False, images=2_500))[1]
    fast = PART1["fast"]
    (stage,) = preset.recipe.stages
    (same,) = fast.recipe.stages
    assert max(stage.rates) < max(same.rates)
    assert replace(stage, epochs=same.epochs, learning_rate=same.learning_rate) == same
    assert (preset.network, preset.recipe.hand, preset.recipe.auxiliary) == ("small", 0, 0)
    assert preset.recipe.window == fast.recipe.window


def accuracy(preset: Preset, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> float:
    """Train on all images but the last 40 and return the accuracy on these."""
    (stage,) = preset.recipe.stages
    stage = replace(stage, epochs=epochs)
    network = networks.build(preset.network, 5, 0, (3, *images.shape[2:]))
    optimizer = optim.build(network, stage)
    batches = (len(images) - 40) // preset.recipe.batch_size
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        order = torch.randperm(len(images) - 40, generator=generator)
        for number, rows in enumerate(order[: batches * 32].view(batches, 32)):
            step = epoch * batches + number
            optim.set_lr(optimizer, optim.stage_lr_factor(stage, step, epochs * batches))
            loss = stage.loss.per_sample(network(images[rows]), labels[rows]).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    predicted = network.eval()(images[-40:]).argmax(dim=1)
    return float((predicted == labels[-40:]).float().mean())


@pytest.mark.parametrize("name", ["photos", "small-images"])
def test_few_images_of_easy_classes_are_told_apart(name: str) -> None:
    side, count = (64, 200) if name == "photos" else (32, 200)
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 5
    # Stripes of five directions and widths, in colours that tell nothing.
    angles = labels * torch.pi / 5
    rows, columns = torch.meshgrid(*(torch.arange(float(side)),) * 2, indexing="ij")
    along = rows * angles.sin()[:, None, None] + columns * angles.cos()[:, None, None]
    phases = torch.rand(count, generator=generator)[:, None, None] * 6
    colours = torch.rand(count, 3, 1, 1, generator=generator)
    images = (along / 2 + phases).sin()[:, None] * colours
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    facts = DataFacts(True, side, side, 5, count - 40)
    epochs = 8 if name == "photos" else 12
    assert accuracy(choose_preset(facts, name)[1], images, labels, epochs) > 0.95


@pytest.mark.parametrize("size", [32, 400])
def test_classes_named_by_single_characters_are_not_mirrored(size: int) -> None:
    facts = replace(FACTS, height=size, width=size)
    for characters, flip in ((False, 0.5), (True, 0)):
        _, preset = choose_preset(replace(facts, characters=characters))
        assert preset.recipe.stages[0].image_augmentation.flip == flip
