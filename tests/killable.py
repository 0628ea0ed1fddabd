"""A training in its own process, which can be killed at any step."""

import os
import signal
from pathlib import Path

import torch
from tiny import CLASSES

from beton.reader import Reader
from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import write_tensors
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.trainer import Trainer

AUGMENTATION = Augmentation(rotation=5, zoom=0.05, shear=0.1, translation=0.05, elastic=0.02)
RECIPE = Recipe(
    (
        Stage(16, 2, 5e-3, augmentation=AUGMENTATION, mixing=Mixing(mixup=0.4, cutmix=0.4)),
        Stage(24, 2, (1e-4, 5e-3), loss=Loss("focal"), frozen=1, optimizer="Muon", clip=0.1),
    ),
    batch_size=16,
    micro_batch=8,
    average=0.9,
    auxiliary=0.5,
)
STEPS = 16


def make_trainer(processes: Processes, file: Reader, checkpoints: Checkpoints) -> Trainer:
    """Create a trainer on a file, with the same file as the auxiliary dataset."""
    network = networks.build("small", len(CLASSES), 0)
    return Trainer(processes, network, RECIPE, file, auxiliary=file, checkpoints=checkpoints)


def train(data: Path, folder: Path, kill_at: int | None = None) -> None:
    """Train from the last checkpoint in `folder`: until killed after a step, or to the end."""
    torch.set_num_threads(1)
    with open_dataset(data) as file, join_processes("no") as processes:
        checkpoints = Checkpoints(folder / "checkpoints", every_steps=3, keep=1)
        trainer = make_trainer(processes, file, checkpoints)
        first = trainer.step

        def on_step(images: int) -> None:
            assert images == RECIPE.batch_size
            if trainer.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        trainer.on_step = on_step
        trainer.run()
        assert len(trainer.losses) == STEPS
        weights = {f"eval_model.{n}": w for n, w in trainer.eval_model.state_dict().items()}
        weights |= {f"network.{n}": w for n, w in trainer.network.state_dict().items()}
        weights["losses"] = torch.tensor(trainer.losses, dtype=torch.float64)
        weights["metrics"] = torch.tensor(
            [(e.train_loss, e.train_accuracy, e.gradient_norm, e.loss) for e in trainer.history]
        )
        weights["first"] = torch.tensor(first)
        write_tensors(folder / "final.safetensors", weights)
