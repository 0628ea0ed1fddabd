"""Options of the jobs that train one network on one dataset, and the job of a dataset's name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import UserError
from pipeline.loading.batches import Decode
from pipeline.runtime.hardware import Precision
from pipeline.training.runner import Tracker


@dataclass(frozen=True)
class Options:
    """Train one network on one dataset."""

    data: Path | None = None
    """The dataset: a file that `./launch.sh prep` writes.
    None: the job's own, which is prepared first if it is missing."""
    runs: Path = Path("runs")
    """Folder for results: they go to JOB/<time> in it, those of classify to DATASET/<time>."""
    recipe: str = "auto"
    """How to train: network, image size, schedule, augmentation."""
    network: str = "auto"
    """Network to train, by name. auto: the recipe's."""
    scale: float | None = None
    """Factor for the epochs of all stages of the recipe; 0.1 is a quick trial. None: 1."""
    size: int | None = None
    """Side of the network's input images, in pixels. None: the recipe's."""
    epochs: int | None = None
    """Epochs. None: the recipe's, and more on a small dataset."""
    train_images: int | None = None
    """Train on this number of images, of each class in proportion. None: on all of them."""
    until: float | None = None
    """Validation accuracy, above 0 and at most 1, that ends the training after its epoch. If it is
    never reached, the training ends after its last epoch."""
    trial: bool = False
    """Train on some of the images for few epochs: everything that a job does, in a minute."""
    batch_size: int | Literal["auto"] | None = None
    """Images per step, over all processes. None: the recipe's.
    auto: the recipe's, computed in parts as large as memory allows."""
    learning_rate: float | Literal["find"] | None = None
    """Peak learning rate. None: the recipe's.
    find: the one at which the loss of a learning rate range test on the training split falls
    fastest; ./launch.sh find-lr shows the curve."""
    optimizer: str | None = None
    """Optimizer: a name in torch.optim, or Muon. None: the recipe's. The learning rate stays the
    recipe's unless it is given."""
    momentum: float | None = None
    """Momentum of an --optimizer that takes one, such as SGD. None: the optimizer's default, or the
    recipe's."""
    weight_decay: float | None = None
    """Weight decay. None: the recipe's."""
    average: float | None = None
    """Decay per step of the exponential moving average of the weights, which is validated and
    saved. 0: the weights themselves. None: the recipe's."""
    class_weights: Literal["balanced"] | None = None
    """balanced: weight each image's loss by the inverse frequency of its class."""
    balanced_sampler: bool = False
    """Sample all classes equally often in training."""
    mirror: Literal["yes", "no"] | None = None
    """Mirror images at random in training. no is for classes that a mirror image does not belong
    to. None: as in the recipe."""
    seed: int = 0
    """Seed of weights, order and augmentation. Equal seeds give equal weights, on one process."""
    resume: Path | None = None
    """Run directory to resume. It goes only with --runs, --decode, --precision, --watch, --track,
    and with --data (and --auxiliary) where the file has moved."""
    checkpoint_steps: int = 0
    """Steps between checkpoints, in addition to one after every epoch. 0: no additional ones."""
    checkpoint_minutes: float = 5
    """Minutes between checkpoints, in addition to those of epochs and steps. 0: no additional
    ones."""
    keep: int = 2
    """Number of checkpoints to keep: the last ones, in addition to the best one."""
    decode: Decode = "auto"
    """What turns stored images into a batch: the loader or the device. auto: the device if it is a
    GPU."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""
    watch: bool = False
    """Write live.html to the run directory every few seconds: curves, rate, time left, the worst
    images. A browser that shows it reloads it by itself until the training ends."""
    track: Tracker | None = None
    """Tracker to show every epoch's metrics in. To install one: ./launch.sh setup track."""


@dataclass(frozen=True)
class Part1Options(Options):
    """Part 1: train a network on 62 classes of handwritten characters."""

    recipe: Literal["fast", "accurate", "progressive", "baseline"] = "fast"
    """How to train. fast: a good accuracy in the shortest time.
    accurate: a better accuracy, in some minutes.
    progressive: the published solution, ResNet-18 on images of increasing size.
    baseline: the first published network, on whole pages."""
    auxiliary: Path | None = None
    """Additional dataset to train on, of synthetic pages.
    None: auxiliary.beton in the folder of --data."""
    auxiliary_share: float | None = None
    """Fraction of each batch that comes from the additional dataset, from 0 to less than 1.
    None: the recipe's, or 0 if --data has other classes than the 62."""


@dataclass(frozen=True)
class EmnistOptions(Options):
    """EMNIST: train a network on 36 classes of handwritten digits and letters."""

    recipe: Literal["first", "first-xavier", "middle", "deeper", "first-sizes"] = "first"
    """How to train. first, middle, deeper: the published networks of growing depth.
    first-xavier: the first with another initialisation and a warm-up.
    first-sizes: the first on characters of many sizes, for images smaller than 28 pixels."""


@dataclass(frozen=True)
class FashionOptions(Options):
    """Fashion-MNIST: train a network on ten kinds of clothing."""

    recipe: Literal["lenet", "fast", "accurate"] = "lenet"
    """How to train. lenet: the published network.
    fast: a small residual network, some minutes on two CPU cores.
    accurate: a wider one, for about half an hour."""


@dataclass(frozen=True)
class Cifar10Options(Options):
    """CIFAR-10: train a network on ten classes of small photos."""

    recipe: Literal["resnet", "speed"] = "resnet"
    """How to train. resnet: the published small ResNet.
    speed: as few seconds as possible to 94 %, on a GPU."""


@dataclass(frozen=True)
class ClassifyOptions(Options):
    """Train a network on a prepared dataset of your own."""

    data: Path | None = None
    """The dataset: a file that `./launch.sh prep` writes. `./launch.sh train NAME` gives
    data/NAME.beton."""
    recipe: Literal["auto", "small-images", "photos", "handwriting"] = "auto"
    """How to train. auto: by the dataset's colours and sizes.
    small-images: images of few pixels, each seen whole; those in colour are mirrored at random.
    photos: photographs of any size, seen whole, cropped and mirrored at random.
    handwriting: grey characters, each seen in a square around its ink.
    Classes that are named by single characters are never mirrored, unless --mirror says so."""


# By job: all that train one network on one dataset.
OPTIONS: dict[str, type[Options]] = {
    "part1": Part1Options,
    "emnist": EmnistOptions,
    "fashion": FashionOptions,
    "cifar10": Cifar10Options,
    "classify": ClassifyOptions,
}
EXPERIMENTS = ("part2", "part3")  # the jobs that train several networks
# Folders of runs/ that belong to jobs, so that a dataset of such a name gets another one.
RESERVED = (*OPTIONS, *EXPERIMENTS, "sweep", "report", "bench", "find-lr")


def job_of(name: str) -> tuple[str, Path | None]:
    """Return the job that `./launch.sh train NAME` starts, and its --data, None for its default.

    Raises UserError for a job of several trainings, and for what is no name.
    """
    if name in OPTIONS:
        return name, None
    if name in EXPERIMENTS:
        raise UserError(f"{name}: got a job of several trainings, expected one that trains once")
    if "/" in name or name.endswith(".beton"):
        jobs = ", ".join(OPTIONS)
        raise UserError(f"name: got {name!r}, expected {jobs}, or the name of a dataset")
    return "classify", Path("data") / f"{name}.beton"


def folder_of(job: str, data: Path) -> str:
    """Return the folder of a job's run directories in runs/, which is also its page's name."""
    if job != "classify":
        return job
    return f"classify-{data.stem}" if data.stem in RESERVED else data.stem
