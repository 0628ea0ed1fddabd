"""Networks: shapes, layer groups, seeds and the transfer of weights."""

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.models import airbench, networks
from pipeline.models.blocks import Network

QUICK = [name for name in networks.NETWORKS if name != "baseline"]  # large, and for whole pages
PAGE = networks.SMALLEST["baseline"]
SPARE = [name for name in QUICK if name.startswith("emnist")]  # with a spare output


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.fixture(scope="module")
def baseline() -> Network:
    """The network `baseline` on the meta device: shapes without weights."""
    with torch.device("meta"):
        return networks.baseline(62)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("shape", [(1, 0, 0), (1, 33, 33), (3, 64, 40)])
def test_logits_for_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    least = networks.SMALLEST.get(name, 16)
    shape = (shape[0], max(shape[1], least), max(shape[2], least))
    network = networks.build(name, 62, 0, shape).eval()
    assert network(torch.rand(3, *shape)).shape == (3, 62)


@pytest.mark.parametrize(
    ("name", "classes", "shape", "expected"),
    [
        ("emnist-first", 36, (1, 28, 28), 90_213),
        ("emnist-first-xavier", 36, (1, 28, 28), 90_213),
        ("emnist-middle", 36, (1, 28, 28), 286_917),
        ("emnist-deeper", 36, (1, 28, 28), 1_338_757),
        ("lenet", 10, (1, 28, 28), 62_158),
        ("resnet9", 10, (3, 32, 32), 6_573_130),
    ],
)
def test_published_networks_have_the_published_parameters(
    name: str, classes: int, shape: tuple[int, int, int], expected: int
) -> None:
    assert parameters(networks.build(name, classes, 0, shape)) == expected


def test_the_parameters_of_the_small_resnet_by_block() -> None:
    network = networks.build("resnet9", 10, 0, (3, 32, 32))
    assert isinstance(network.body, nn.Sequential)
    blocks = [parameters(block) for block in (network.stem, *network.body, network.head)]
    assert blocks == [1_856, 369_408, 295_424, 5_901_312, 5_130]


@pytest.mark.parametrize("name", SPARE)
def test_a_spare_output_is_trained_and_never_predicted(name: str) -> None:
    network = networks.build(name, 36, 0, (1, 28, 28))
    images = torch.rand(4, 1, 28, 28)
    assert network(images).shape == (4, 37)
    with torch.no_grad():  # the spare output is by far the largest
        network.head[0].bias[-1] = 1e3  # type: ignore[index]
    assert (network(images).argmax(dim=1) == 36).all()
    network.eval()
    assert network(images).shape == (4, 36)
    assert network(images).max() < 1e2


def test_xavier_is_the_same_network_with_other_weights() -> None:
    first, xavier = (
        networks.build(name, 36, 3, (1, 28, 28)).state_dict()
        for name in ("emnist-first", "emnist-first-xavier")
    )
    other = {name for name in first if not torch.equal(first[name], xavier[name])}
    assert other == {"stem.0.weight", "body.0.weight", "head.0.weight"}
    for name in other:
        weight = xavier[name]
        area = weight[0, 0].numel()
        bound = (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound


def test_whitening_makes_patches_uncorrelated() -> None:
    network = networks.build("airbench", 10, 0, (3, 32, 32))
    assert isinstance(network, airbench.Airbench)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(50, 3, 32, 32, generator=generator).cumsum(dim=3)
    images = (images - images.mean()) / images.std()
    network.initialize(images)
    changed = {
        n for n, weight in network.state_dict().items() if not torch.equal(weight, before[n])
    }
    assert changed == {"stem.0.weight"}
    outputs = network.stem[0](images)  # type: ignore[index]
    values = outputs[:, :12].transpose(0, 1).flatten(1)
    covariance = values @ values.T / values.shape[1]
    # The eigenvalues of smooth images come near the constant that is added to them.
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-3
    assert covariance.diagonal().max() <= 1
    assert torch.equal(outputs[:, :12], -outputs[:, 12:])
    assert "stem.0.weight" not in dict(network.named_parameters())


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_smaller_images_than_a_network_takes(name: str) -> None:
    least = networks.SMALLEST.get(name, 16)
    if name in networks.SMALLEST:
        with pytest.raises(UserError, match=rf"{least - 1}×{least} .* at least {least} .* {name}"):
            networks.build(name, 10, 0, (1, least - 1, least))
    with torch.device("meta"):
        assert parameters(networks.NETWORKS[name](10, (1, least, least))) > 0


@pytest.mark.parametrize("size", [(900, 1200), (600, 800), (PAGE, PAGE)])
def test_the_baseline_takes_pages(baseline: Network, size: tuple[int, int]) -> None:
    assert baseline(torch.rand(2, 1, *size, device="meta")).shape == (2, 62)


def test_smaller_pages_than_the_baseline_takes(baseline: Network) -> None:
    with pytest.raises(RuntimeError):
        baseline(torch.rand(1, 1, PAGE - 1, PAGE, device="meta"))
    with pytest.raises(UserError, match=r"got images of 280×900 pixels, expected at least 281"):
        networks.check_size("baseline", 280, 900)
    networks.check_size("baseline", PAGE, PAGE)
    networks.check_size("small", 16, 16)


def test_the_baseline_is_the_published_one(baseline: Network) -> None:
    page = torch.rand(1, 1, 900, 1200, device="meta")
    convolutions = nn.Sequential(*list(baseline.body.children())[:-1])
    assert convolutions(baseline.stem(page)).shape == (1, 256, 8, 12)
    sizes = [tuple(w.shape) for w in baseline.parameters() if w.ndim > 1]
    kernels = [(16, 3, 6, 6), (64, 16, 6, 6), (128, 64, 6, 6), (256, 128, 6, 6)]
    assert sizes == [*kernels, (4096, 24_576), (256, 4096), (62, 256)]


def test_the_small_networks_are_small_and_the_other_is_resnet18() -> None:
    assert 200_000 < parameters(networks.build("small", 62, seed=0)) < 700_000
    assert 150_000 < parameters(networks.build("compact", 62, seed=0)) < 250_000
    assert 50_000 < parameters(networks.build("plain", 62, seed=0)) < 100_000
    grey = 7 * 7 * 64 * 2  # two input channels fewer than torchvision's
    assert parameters(networks.build("resnet18", 1000, seed=0)) == 11_689_512 - grey


@pytest.mark.parametrize(("name", "differ"), [("small", False), ("compact", True)])
@pytest.mark.parametrize("side", [2, 5, 6, 8])
def test_cells_tell_in_which_part_of_an_image_a_feature_is(
    name: str, differ: bool, side: int
) -> None:
    head = networks.build(name, 10, seed=0).head
    features = torch.zeros(2, 160, side, side)
    features[0, :, 0, 0] = features[1, :, -1, -1] = 8.0
    one, other = head(features)
    assert torch.allclose(one, other) != differ


@pytest.mark.parametrize("name", QUICK)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    one, same, other = (networks.build(name, 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", QUICK)
def test_every_weight_gets_a_gradient(name: str) -> None:
    network = networks.build(name, 5, seed=0)
    network(torch.rand(4, 1, 64, 64)).square().sum().backward()
    without = [key for key, weight in network.named_parameters() if not weight.grad.any()]  # type: ignore[union-attr]
    assert without == []


@pytest.mark.parametrize("name", QUICK)
def test_stem_body_and_head_are_the_whole_network(name: str) -> None:
    network = networks.build(name, 7, seed=0).eval()
    groups = {key.split(".")[0] for key in network.state_dict()}
    assert groups == {"stem", "body", "head"}
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(network(images), network.head(network.body(network.stem(images))))
    outputs = {weight.shape[0] for weight in network.head.parameters()}
    assert outputs == {7 + (name in SPARE)}


def test_an_unknown_network() -> None:
    known = "small, medium, compact, plain, resnet18, baseline, emnist"
    with pytest.raises(UserError, match=f"'vgg', expected one of {known}"):
        networks.build("vgg", 10, seed=0)


@pytest.mark.parametrize("name", QUICK)
def test_weights_for_the_same_classes_all_fit(name: str) -> None:
    one, other = (networks.build(name, 10, seed) for seed in (1, 2))
    assert networks.transfer(other, one.state_dict()) == ()
    assert all(torch.equal(w, one.state_dict()[key]) for key, w in other.state_dict().items())


def test_a_head_for_other_classes_stays_random() -> None:
    one, other = networks.build("small", 62, seed=1), networks.build("small", 10, seed=2)
    before = {key: weight.clone() for key, weight in other.state_dict().items()}
    assert networks.transfer(other, one.state_dict()) == ("head.2.bias", "head.2.weight")
    for key, weight in other.state_dict().items():
        source = before if key.startswith("head.") else one.state_dict()
        assert torch.equal(weight, source[key])


@pytest.mark.parametrize("other", ["plain", "resnet18"])
def test_weights_of_another_network_are_refused_and_none_is_loaded(other: str) -> None:
    network = networks.build("small", 10, seed=1)
    before = {key: weight.clone() for key, weight in network.state_dict().items()}
    with pytest.raises(UserError, match="does not fit; they are of another network"):
        networks.transfer(network, networks.build(other, 10, seed=2).state_dict())
    assert all(torch.equal(w, before[key]) for key, w in network.state_dict().items())
