"""The layers of a network and the memory of a training step.

Nothing is trained or allocated for the estimate: fake tensors have shapes, dtypes and devices, and
no values. They run the same operations as a real step, so what autograd saves is that of a real
step, byte for byte.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from pipeline.models import networks
from pipeline.models.blocks import Network, Shape
from pipeline.models.described import described
from pipeline.models.layers import LayerRow, layer_table
from pipeline.recipes.recipe import Stage
from pipeline.runtime.hardware import autocast
from pipeline.training import optim


@dataclass(frozen=True)
class Subject:
    """A training step to look at.

    `network` is a name of `networks.NETWORKS`, or the layers of `described`. It computes on images
    of a `shape` in `precision` on `device`, `rows` of them at a time; `stage` has the optimizer,
    the frozen layers and whether the precision is mixed.
    """

    network: str
    classes: int
    shape: Shape
    rows: int
    stage: Stage
    device: str = "cpu"
    precision: str = "no"

    def build(self) -> Network:
        """Return the network. Raises UserError for one that is unknown or needs larger images."""
        if self.network in networks.NETWORKS:
            return networks.build(self.network, self.classes, 0, self.shape)
        return described(self.network, self.shape)

    def autocast(self) -> torch.autocast:
        """Return a context of the stage's precision."""
        computes = self.precision if self.stage.mixed_precision else "no"
        return autocast(torch.device(self.device), computes)

    def layers(self) -> tuple[LayerRow, ...]:
        """Return the rows of the network's layer table."""
        with torch.device("meta"):
            network = self.build()
        return layer_table(network, self.shape)


@dataclass(frozen=True)
class Memory:
    """The memory that a training step needs to hold, in bytes.

    `buffers` are weights that are not trained, such as the statistics of batch normalisation.
    `activations` are the tensors that autograd saves for the backward pass, each storage once,
    without parameters, buffers and the batch itself; `activations_of_one` are those of one more
    image. Temporary memory of operations is not included.
    """

    parameters: int
    buffers: int
    gradients: int
    optimizer: int
    images: int
    activations: int
    activations_of_one: int

    @property
    def total(self) -> int:
        """The sum."""
        kept = self.parameters + self.buffers + self.gradients + self.optimizer
        return kept + self.images + self.activations


def memory_of(subject: Subject) -> Memory:
    """Return the memory of a step of a network and its optimizer, without allocating it.

    Raises UserError as `Subject.build` and `optim.build` do.
    """
    with torch.device("meta"):
        outline = subject.build().train()
    outline.to(memory_format=torch.channels_last)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = outline.to_empty(device=subject.device)
        optimizer = optim.build(network, subject.stage)
        trained = [one for one in network.parameters() if one.requires_grad]
        # Batch normalisation refuses one row; the saved bytes are linear in the rows.
        two, four = (_saved(subject, network, rows) for rows in (2, 4))
        of_one = (four.activations - two.activations) // 2
        output = four.output
        if output.requires_grad:
            output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]
        optimizer.step()
        return Memory(
            parameters=_bytes(network.parameters()),
            buffers=_bytes(network.buffers()),
            gradients=_bytes(one.grad for one in trained if one.grad is not None),
            optimizer=_bytes(_tensors(optimizer.state)),
            images=four.images * subject.rows // 4,
            activations=two.activations + (subject.rows - 2) * of_one,
            activations_of_one=of_one,
        )


@dataclass
class _Saved:
    """The bytes that autograd saved of a forward pass, and those of the batch; the output."""

    activations: int
    images: int
    output: Tensor


def _saved(subject: Subject, network: nn.Module, rows: int) -> _Saved:
    batch = torch.empty(rows, *subject.shape, device=subject.device)
    batch = batch.to(memory_format=torch.channels_last)
    storages: dict[Any, Any] = {}  # kept, so that no two storages have the same address
    known = {one.untyped_storage()._cdata for one in (*network.parameters(), *network.buffers())}
    known.add(batch.untyped_storage()._cdata)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            storages[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), subject.autocast():
        output = network(batch)
    saved = sum(storage.nbytes() for storage in storages.values())
    return _Saved(saved, batch.untyped_storage().nbytes(), output)


def _bytes(tensors: Any) -> int:
    """Return the bytes of tensors, shared storages once."""
    storages = {one.untyped_storage()._cdata: one.untyped_storage() for one in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(state: Any) -> list[Tensor]:
    """Return the tensors in an optimizer's state, at any depth."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in _tensors(value)]
    if isinstance(state, list | tuple):
        return [tensor for value in state for tensor in _tensors(value)]
    return []
