import gc
import json
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import box_resize

from beton import ops, rng, transforms
from beton.codec.unpacking import FLAT
from beton.errors import BetonError, ChecksumError
from beton.fields import (
    BytesField,
    FloatField,
    InkField,
    IntField,
    JSONField,
    NDArrayField,
    RGBImageField,
)
from beton.loader import Batch, Loader
from beton.order import Shard, epoch_order
from beton.reader import Reader
from beton.writer import write

SAMPLES = 37
JITTER = transforms.Jitter(scale=(0.8, 1.2), aspect=(0.9, 1.1), translate=(0.1, 0.1), shear=0.2)
shared = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sample(i: int) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    page = np.full((int(rng.integers(20, 60)), int(rng.integers(20, 80))), 255, np.uint8)
    page[5:15, 3 : 10 + i % 9] = i
    page[8:18, 6:9] = 0
    return {
        "page": page,
        "digit": rng.integers(0, 256, (8, 8)).astype(np.uint8) if i % 3 else np.eye(8, dtype="u1"),
        "label": i % 10,
        "weight": i / 7,
        "colour": rng.integers(0, 256, (6, 5, 3)).astype(np.uint8),
        "array": rng.standard_normal((2, 3)).astype(np.float32),
        "text": np.arange(1 + i % 5, dtype=np.uint8),
        "facts": {"number": i},
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loader") / "all.beton"
    fields = {
        "page": InkField(),
        "digit": InkField(),
        "label": IntField(),
        "weight": FloatField(),
        "colour": RGBImageField("proportion"),
        "array": NDArrayField(np.dtype(np.float32), (2, 3)),
        "text": BytesField(),
        "facts": JSONField(),
    }
    write(path, fields, [sample(i) for i in range(SAMPLES)])
    return path


FIELDS = {"page": ops.Resize(12, 10, jitter=JITTER), "label": ops.Scalar()}


def collect(batches: Any) -> list[tuple[Any, ...]]:
    """Copy batches to bytes, to compare them bit for bit."""
    return [
        (b.ids.tolist(), b.valid.tolist(), *(a.tobytes() for a in b.arrays.values()))
        for b in batches
    ]


def test_every_field_as_it_is(path: Path) -> None:
    with Reader(path) as reader:
        decoded = [reader[i] for i in range(SAMPLES)]
    names = [name for name in decoded[0] if name != "page"]
    with Reader(path) as reader:
        fields = {name: ops.default(reader.column(name)) for name in names}
    with Loader(path, 5, fields, order="sequential") as loader:
        for batch in loader:
            for name, spec in loader.specs().items():
                assert (batch[name].shape, batch[name].dtype) == spec
            for row, i in enumerate(batch.ids[batch.valid]):
                for name in ("digit", "label", "weight", "colour", "array"):
                    assert np.array_equal(batch[name][row], decoded[i][name]), name
                size = batch["text.size"][row]
                assert batch["text"][row, :size].tobytes() == decoded[i]["text"]
                assert not batch["text"][row, size:].any()
                text = batch["facts"][row].tobytes().rstrip(b"\0")
                assert json.loads(text) == decoded[i]["facts"]


def test_different_sizes_need_a_resize(path: Path) -> None:
    with pytest.raises(BetonError, match=r"field 'page', sample .* different sizes"):
        Loader(path, 4)


def test_an_op_rejects_another_kind_of_field(path: Path) -> None:
    with pytest.raises(BetonError, match=r"'label'.*got IntField, expected InkField"):
        Loader(path, 4, {"label": ops.Resize(8, 8)})
    with pytest.raises(BetonError, match="no such field"):
        Loader(path, 4, {"nothing": ops.Scalar()})


def test_resize_and_runs_agree_with_the_reference(path: Path) -> None:
    fields: dict[str, ops.Op] = {"page": ops.Resize(9, 14, jitter=JITTER)}
    runs: dict[str, ops.Op] = {"page": ops.Runs(jitter=JITTER)}
    with Loader(path, 8, fields, seed=4) as resized, Loader(path, 8, runs, seed=4) as raw:
        for batch, other in zip(resized.batches(2), raw.batches(2), strict=True):
            assert np.array_equal(batch.ids, other.ids)
            offsets = other["page.offsets"]
            for row, i in enumerate(other.ids[other.valid]):
                image = sample(i)["page"]
                painted = np.full(other["page.size"][row], other["page.background"][row], np.uint8)
                for y, a, b, value in other["page"][offsets[row] : offsets[row + 1]]:
                    painted[y, a:b] = value
                assert np.array_equal(painted, image)
                expected = box_resize(image, 255, other["page.geometry"][row], 9, 14)
                assert np.abs(batch["page"][row] - expected).max() <= 0.5 + 1e-6
            assert (offsets[len(other.ids[other.valid]) :] == offsets[-1]).all()


def test_normalized_images(path: Path) -> None:
    scaled = transforms.Normalize(mean=100, std=50)
    fields: dict[str, ops.Op] = {
        "digit": ops.Pixels(scaled),
        "page": ops.Resize(7, 7, normalize=scaled),
    }
    plain: dict[str, ops.Op] = {"digit": ops.Pixels(), "page": ops.Resize(7, 7)}
    with Loader(path, 8, fields) as floats, Loader(path, 8, plain) as greys:
        for a, b in zip(floats, greys, strict=True):
            real = a.valid
            assert np.allclose(a["digit"][real], (b["digit"][real] - 100.0) / 50, atol=1e-5)
            assert np.abs(a["page"][real] * 50 + 100 - b["page"][real]).max() <= 0.5 + 1e-3


def test_jitter_without_strength_shows_the_whole_image() -> None:
    sizes = np.array([[30, 40], [7, 900]])
    still = transforms.Jitter().geometry(rng.Key(1, 2), np.array([5, 6]), sizes)
    assert np.allclose(still, transforms.full_geometry(sizes))


@shared
@given(
    st.integers(0, 3), st.integers(1, 5), st.integers(1, 20), st.integers(0, 5), st.integers(0, 9)
)
def test_batches_do_not_depend_on_threads(
    path: Path, threads: int, prefetch: int, size: int, epoch: int, seed: int
) -> None:
    with Loader(path, size, FIELDS, seed=seed, threads=0) as plain:
        expected = collect(plain.batches(epoch))
    with Loader(path, size, FIELDS, seed=seed, threads=threads, prefetch=prefetch) as loader:
        assert collect(loader.batches(epoch)) == expected


@shared
@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_ranks_see_the_global_batch(
    path: Path, count: int, rows: int, epoch: int, drop_last: bool
) -> None:
    assume(rows * count <= SAMPLES or not drop_last)

    def load(shard: Shard) -> list[Batch]:
        with Loader(path, rows * count, FIELDS, shard=shard, drop_last=drop_last) as loader:
            return list(loader.batches(epoch))

    whole = load(Shard())
    parts = [load(Shard(index, count)) for index in range(count)]
    for number, batch in enumerate(whole):
        rank_batches = [part[number] for part in parts]
        for name in batch.arrays:
            together = np.concatenate([b[name] for b in rank_batches])
            assert np.array_equal(together, batch[name])
        assert np.array_equal(np.concatenate([b.valid for b in rank_batches]), batch.valid)
    seen = np.concatenate([b.ids[b.valid] for b in whole])
    assert (
        len(set(seen))
        == len(seen)
        == (SAMPLES // (rows * count) * rows * count if drop_last else SAMPLES)
    )


@shared
@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 4))
def test_a_resumed_loader_continues_where_it_stopped(
    path: Path, size: int, stop: int, count: int
) -> None:
    def stream(loader: Loader) -> Any:
        for epoch in range(2):
            for batch in loader:
                yield epoch, batch

    with Loader(path, size * count, FIELDS) as loader:
        expected = collect(batch for _, batch in stream(loader))
    with Loader(path, size * count, FIELDS) as loader:
        before = []
        for _, (_, batch) in zip(range(min(stop, len(expected))), stream(loader), strict=False):
            before += collect([batch])
        state = json.loads(json.dumps(loader.state_dict()))
    with Loader(path, size * count, FIELDS) as loader:
        loader.load_state_dict(state)
        after = []
        for _ in range(2 - state["epoch"]):
            after += collect(loader)
    assert before + after == expected


def test_a_state_of_other_samples_is_rejected(path: Path) -> None:
    with Loader(path, 4, FIELDS, indices=range(20)) as loader:
        state = loader.state_dict()
    with (
        Loader(path, 4, FIELDS, indices=range(1, 21)) as loader,
        pytest.raises(ValueError, match="indices: got"),
    ):
        loader.load_state_dict(state)
    with (
        Loader(path, 4, FIELDS, indices=range(20)) as loader,
        pytest.raises(ValueError, match="file: got"),
    ):
        loader.load_state_dict({**state, "file": "01234567"})


def test_a_state_of_other_batches_is_rejected(path: Path) -> None:
    with Loader(path, 4, FIELDS, seed=1) as loader:
        state = loader.state_dict()
    with (
        Loader(path, 4, FIELDS, seed=2) as loader,
        pytest.raises(ValueError, match="seed: got 1, expected 2"),
    ):
        loader.load_state_dict(state)


@pytest.mark.parametrize("threads", [0, 2])
def test_the_next_order_is_computed_during_an_epoch(
    path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """The order of a large file is made ahead, by another thread, and is the same."""
    made: list[tuple[int, str]] = []

    def noted(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
        made.append((epoch, threading.current_thread().name))
        return epoch_order(n, seed, epoch)

    monkeypatch.setattr("beton.order.Orders.LONG", 1)
    monkeypatch.setattr("beton.order.epoch_order", noted)
    for indices in (None, np.arange(3, 20)):
        made.clear()
        with Loader(path, 4, {"label": ops.Scalar()}, threads=threads, indices=indices) as loader:
            for epoch in (0, 1, 2, 5):
                ids = np.concatenate([batch.ids[batch.valid] for batch in loader.batches(epoch)])
                chosen = np.arange(SAMPLES) if indices is None else indices
                assert np.array_equal(ids, chosen[epoch_order(len(chosen), 0, epoch)])
        ahead = {epoch for epoch, thread in made if thread.startswith("beton-order")}
        own = [epoch for epoch, thread in made if not thread.startswith("beton-order")]
        assert own == ([0, 5] if threads else [0, 1, 2, 5])
        assert {1, 2} <= ahead <= {1, 2, 3, 6} if threads else not ahead


def test_padding_is_marked_and_zero(path: Path) -> None:
    with Loader(path, 16, FIELDS) as loader:
        list(loader)
        last = list(loader)[-1]
    assert last.valid.sum() == SAMPLES % 16
    assert (last.ids[~last.valid] == -1).all()
    assert not last["page"][~last.valid].any()


def test_indices_choose_samples(path: Path) -> None:
    chosen = [30, 2, 7, 11]
    with Loader(path, 3, FIELDS, indices=chosen, order="sequential") as loader:
        assert [i for b in loader for i in b.ids[b.valid]] == chosen
    with Loader(path, 3, FIELDS, indices=chosen) as loader:
        assert sorted(i for b in loader for i in b.ids[b.valid]) == sorted(chosen)


def test_referenced_batches_are_never_overwritten(path: Path) -> None:
    with Loader(path, 4, FIELDS, threads=2, prefetch=3) as loader:
        kept = list(loader.batches(0))
        copies = collect(kept)
        views = [batch["page"][1:, ::2] for batch in kept]
        values = [view.copy() for view in views]
        del kept
        list(loader.batches(1))
        assert all(np.array_equal(a, b) for a, b in zip(views, values, strict=True))
        assert collect(loader.batches(0)) == copies


def test_a_plain_loop_reuses_its_slots(path: Path) -> None:
    made: list[tuple[int, ...]] = []

    def allocate(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        made.append(shape)
        return np.zeros(1000 + int(np.prod(shape)), dtype)[: int(np.prod(shape))].reshape(shape)

    with Loader(path, 1, FIELDS, threads=2, prefetch=3, allocate=allocate) as loader:
        for epoch in range(4):
            for batch in loader.batches(epoch):
                assert batch["page"].shape == (1, 12, 10)
    # The prefetched batches, one per thread, the consumer's, and one between them.
    assert len(made) <= len(FIELDS) * (3 + 2 + 2)


def test_an_allocator_of_other_arrays_is_rejected(path: Path) -> None:
    with (
        Loader(path, 4, FIELDS, allocate=lambda shape, _: np.empty(shape, np.int8)) as loader,
        pytest.raises(ValueError, match="allocate: got int8"),
    ):
        next(iter(loader))


def loader_threads() -> int:
    return sum(thread.name.startswith("beton-loader") for thread in threading.enumerate())


def test_iterations_may_stop_early_and_start_again(path: Path) -> None:
    with Loader(path, 2, FIELDS, threads=2) as loader:
        for _ in range(10):
            for batch in loader:
                assert len(batch.ids) == 2
                break
        assert 0 < loader_threads() <= 2
        assert len(list(loader)) == len(loader)
        half = iter(loader)
        next(half)
        loader.close()
        assert loader_threads() == 0
        loader.close()
        for ended in (half, iter(loader)):
            with pytest.raises(ValueError, match="closed"):
                next(ended)


def test_a_consumer_that_raises_leaves_no_thread(path: Path) -> None:
    def consume() -> None:
        with Loader(path, 2, FIELDS, threads=2) as loader:
            for _ in loader:
                raise KeyError("mine")

    with pytest.raises(KeyError):
        consume()
    assert loader_threads() == 0


def test_a_garbage_collected_loader_leaves_no_thread(path: Path) -> None:
    loader = Loader(path, 2, FIELDS, threads=2)
    iteration = iter(loader)
    next(iteration)
    del loader, iteration
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("beton-loader"):
            thread.join(timeout=10)
    assert loader_threads() == 0


def test_iterations_abandoned_in_cycles_do_not_hang(path: Path) -> None:
    # The garbage collector may close them at any moment, in any thread, also in a worker.
    with Loader(path, 1, FIELDS, threads=2, prefetch=3) as loader:
        for _ in range(300):
            iteration = iter(loader)
            next(iteration)
            cycle: list[Any] = [iteration]
            cycle.append(cycle)
        assert len(list(loader)) == len(loader)


@pytest.mark.parametrize("threads", [0, 2])
def test_closing_from_another_thread_stops_the_iteration(path: Path, threads: int) -> None:
    loader = Loader(path, 1, {"label": Slow()}, threads=threads)
    iteration = iter(loader)
    next(iteration)
    closing = threading.Thread(target=loader.close)
    closing.start()
    with pytest.raises(ValueError, match="closed"):
        list(iteration)
    closing.join()
    assert loader.state_dict()["epoch"] == 0
    assert loader_threads() == 0


def test_a_limit_on_threads_is_no_closed_loader(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: a container's limit on processes (pids.max), as Python reports it."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Loader(path, 4, FIELDS, threads=2) as loader:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            list(loader)


def test_closing_releases_file_and_memory(path: Path) -> None:
    made: list[Any] = []

    def allocate(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        array = np.empty(shape, dtype)
        made.append(weakref.ref(array))
        return array

    loader = Loader(path, 4, FIELDS, allocate=allocate)
    for batch in loader:
        del batch
    loader.close()
    assert made
    assert all(array() is None for array in made)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(path) not in maps.read_text()


def test_a_deleted_file_is_read_to_its_end(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.beton"
    copy.write_bytes(path.read_bytes())
    with Loader(path, 4, FIELDS) as loader:
        expected = collect(loader)
    with Loader(copy, 4, FIELDS) as loader:
        iteration = iter(loader)
        first = collect([next(iteration)])
        copy.unlink()
        assert first + collect(iteration) == expected


@dataclass(frozen=True)
class Slow:
    """A slow op, defined outside of beton."""

    outputs: Mapping[str, ops.Spec] | None = None

    def bind(self, _column: Any, _ids: Any, rows: int) -> Any:
        return Slow({"": ops.Spec((rows,), np.dtype(np.int64))})

    def run(self, ids: Any, _key: Any, out: Any) -> None:
        threading.Event().wait(0.02)
        out[""][: len(ids)] = ids


def test_arrays_with_the_same_name_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "names.beton"
    write(path, {"text": BytesField(), "text.size": IntField()}, [(b"a", 1), (b"bc", 2)])
    with pytest.raises(ValueError, match=r"'text\.size'"):
        Loader(path, 2)


@pytest.mark.parametrize(("epoch", "start"), [(0, -1), (-1, 0), (0, 99)])
def test_a_position_outside_the_epoch_is_rejected(path: Path, epoch: int, start: int) -> None:
    with Loader(path, 4, FIELDS) as loader:
        with pytest.raises(ValueError, match="epoch, batch"):
            loader.batches(epoch, start)
        with pytest.raises(ValueError, match="epoch, batch"):
            loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "batch": start})


@dataclass(frozen=True)
class FailsAt:
    """An op, defined outside of beton, that fails at one sample."""

    bad: int
    outputs: Mapping[str, ops.Spec] | None = None

    def bind(self, _column: Any, _ids: Any, rows: int) -> Any:
        return FailsAt(self.bad, {"": ops.Spec((rows,), np.dtype(np.int64))})

    def run(self, ids: Any, _key: Any, out: Any) -> None:
        if self.bad in ids:
            raise ZeroDivisionError("injected")
        out[""][: len(ids)] = ids


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_an_exception_in_an_op_reaches_the_consumer(path: Path, threads: int) -> None:
    with Loader(path, 4, {"label": FailsAt(23)}, threads=threads) as loader:
        with pytest.raises(ZeroDivisionError) as caught:
            list(loader)
        (note,) = caught.value.__notes__
        assert "FailsAt on field 'label', sample 23 of" in note
        assert str(path) in note


def test_a_checksum_error_reaches_the_consumer(path: Path, tmp_path: Path) -> None:
    with Reader(path) as reader:
        start = int(reader.column("page").take().starts[20])
    data = bytearray(path.read_bytes())
    data[start] ^= 1
    damaged = tmp_path / "damaged.beton"
    damaged.write_bytes(data)
    with (
        Loader(damaged, 4, FIELDS) as loader,
        pytest.raises(ChecksumError, match=r"damaged\.beton"),
    ):
        list(loader)


def test_a_damaged_run_stream_names_the_sample(path: Path) -> None:
    # The checksums do not cover this damage, so the kernel must detect it.
    with Reader(path) as reader:
        column = reader.column("page")
        changed = column.data.copy()
        mode = column.metadata["mode"]
        flat = np.flatnonzero(mode == FLAT)
        bad = int(flat[0]) if len(flat) else 20
        taken = column.take()
        start, size = int(taken.starts[bad]), int(taken.sizes[bad])
        changed[start : start + size] = 255
        step = ops.Resize(8, 8).bind(
            type(column)(**{**vars(column), "data": changed}), np.arange(SAMPLES), 4
        )
        with pytest.raises(BetonError, match=f"'page', sample {bad}: "):
            step.run(np.array([bad]), rng.Key(0, 0), {"": np.empty((4, 8, 8), np.uint8)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 3, "shard": Shard(0, 2)}, "multiple of 2"),
        ({"batch_size": 64, "drop_last": True}, "at most 37"),
        ({"order": "random"}, "order: got 'random'"),
        ({"threads": -1}, "threads"),
        ({"seed": -1}, "seed: got -1"),
        ({"indices": [40]}, "indices: got 40"),
        ({"indices": []}, "indices"),
        ({"indices": [0.5]}, "indices"),
    ],
)
def test_rejects_arguments(path: Path, wrong: dict[str, Any], message: str) -> None:
    arguments = {"batch_size": 4, **wrong}
    with pytest.raises(ValueError, match=message):
        Loader(path, fields=FIELDS, **arguments)
