import pytest
import torch

from pipeline import models
from pipeline.errors import UserError


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("name", models.NETWORKS)
@pytest.mark.parametrize("size", [16, 33, 64])
def test_logits_for_pictures_of_any_size(name: str, size: int) -> None:
    network = models.build(name, 62, seed=0).eval()
    assert network(torch.rand(3, 1, size, size)).shape == (3, 62)


def test_the_small_network_is_small_and_the_other_is_resnet18() -> None:
    assert 200_000 < parameters(models.build("small", 62, seed=0)) < 700_000
    grey = 7 * 7 * 64 * 2  # two input channels fewer than torchvision's
    assert parameters(models.build("resnet18", 1000, seed=0)) == 11_689_512 - grey


@pytest.mark.parametrize("name", models.NETWORKS)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    one, same, other = (models.build(name, 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", models.NETWORKS)
def test_every_weight_learns(name: str) -> None:
    network = models.build(name, 5, seed=0)
    network(torch.rand(4, 1, 64, 64)).square().sum().backward()
    still = [key for key, weight in network.named_parameters() if not weight.grad.any()]  # type: ignore[union-attr]
    assert still == []


def test_an_unknown_network() -> None:
    with pytest.raises(UserError, match="'vgg', expected one of small, resnet18"):
        models.build("vgg", 10, seed=0)
