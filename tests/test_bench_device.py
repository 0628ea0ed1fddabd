"""The benchmark of the device on a CPU, and its parts for a GPU with a simulated one."""

from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from tiny import write_set

from beton.reader import Reader
from pipeline.benchmarks.device import command, decoding, tables, timing, training
from pipeline.benchmarks.device.page import plots
from pipeline.benchmarks.device.results import DecodingFigures, DeviceResult, TrainingFigures
from pipeline.benchmarks.page import page_of
from pipeline.benchmarks.results import read_results
from pipeline.errors import UserError
from pipeline.loading.dataset import open_dataset
from pipeline.training.distributed import join_processes

ROOT = Path(__file__).resolve().parents[1]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # As prep describes them: not all values are texts.
    provenance = {"kind": "synthetic", "source": "tiny", "digest": "sha256:tiny", "bytes": 0}
    path = tmp_path_factory.mktemp("device") / "pages.beton"
    return write_set(path, train=20, info={"provenance": provenance})


@pytest.fixture(scope="module")
def run(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    options = ["--quick", "--data", str(pages), "--sizes", "28", "--rounds", "2", "--steps", "1"]
    done = forked.run(["jobs/bench/device.py", *options, "--runs", str(folder)], ROOT)
    assert done.returncode == 0, done.stderr
    assert "no GPU: the same code, measured on the CPU" in done.stdout
    return folder / "bench" / "latest"


def test_all_figures_are_measured_without_a_gpu(run: Path) -> None:
    result = read_results(run).device
    assert result is not None
    assert (result.device, result.name, result.on_gpu) == ("cpu", "", False)
    assert [one.size for one in result.decoding] == [28] * 3
    for one in result.decoding:
        assert len(one.rates) == len(one.reference_rates) == 2
        assert 0 < one.decode_seconds < 1
        assert 0 < one.augment_seconds < 1
        assert one.bytes_moved > 0
        assert one.peak_memory is None
    assert [one.method for one in result.training] == ["loader", "device", "bare loop"]
    assert all(min(one.rates) > 0 for one in result.training)


def test_the_page_says_where_it_was_measured(run: Path) -> None:
    html = page_of([run]).html()
    for part in ("Decoding on the device", "no GPU: the same code", "bench device", "bare loop"):
        assert part in html
    assert html.count("<svg") == 2  # decoding and training
    for name in ("decoding", "training"):
        assert (run / f"device-{name}.png").stat().st_size > 1_000


def test_each_size_and_recipe_has_a_panel_of_bars() -> None:
    """The figures are made up; bars are medians, lines the range of the rounds."""
    rounds = {("a", 28): (1.0, 2.0, 4.0), ("JPEG, b", 28): (0.5,) * 3, ("a", 64): (8.0, 7.0, 9.0)}
    decoding = [
        DecodingFigures(name, size, rates, rates, 1e-6, 1e-6, 1.0, None)
        for (name, size), rates in rounds.items()
    ]
    made = TrainingFigures("fast", "small", 48, "loader", (3.0,), (3.0,), 0.1, None)
    result = DeviceResult("cpu", "", "no", 3, 1, 4, (0, 0), tuple(decoding), (made,), ())
    first, second = plots(result)["device-decoding"].axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["28×28", "64×64"]
    bars = [patch for patch in first.patches if isinstance(patch, Rectangle)]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "JPEG, b"]
    assert [bar.get_bbox().width for bar in bars] == [2.0, 0.5]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()
    (line,) = second.lines
    assert np.asarray(line.get_xdata()).tolist() == [7.0, 9.0]
    (axes,) = plots(result)["device-training"].axes
    assert axes.get_title(loc="left") == "fast, 48×48"


class FakeEvent:
    """An event of a simulated device, whose clock is the number of calls of the work."""

    calls = 0

    def __init__(self) -> None:
        self.at = self.waited = -1

    def record(self) -> None:
        self.at = FakeEvent.calls

    def synchronize(self) -> None:
        self.waited = self.at

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert end.waited == end.at >= self.at >= 0  # recorded, and waited for
        return 5.0 * (end.at - self.at)


def test_work_on_a_gpu_is_timed_by_events() -> None:
    """A call of the work takes 5 ms of the simulated device, and the warm-up does not count."""
    events: list[FakeEvent] = []

    def event() -> Any:
        events.append(FakeEvent())
        return events[-1]

    def work() -> None:
        FakeEvent.calls += 1

    assert timing.Timer(GPU, event).seconds(work, 4) == pytest.approx(0.005)
    assert FakeEvent.calls == 5
    assert len(events) == 2


def test_a_cpu_needs_no_events() -> None:
    assert 0 <= timing.Timer(CPU, lambda: pytest.fail("no event")).seconds(lambda: None, 3) < 1
    timing.synchronize(CPU)
    timing.reset_peak_memory(CPU)
    assert timing.peak_memory(CPU) is None


def test_a_gpu_is_waited_for_and_its_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(device))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 7)
    timing.synchronize(GPU)
    timing.reset_peak_memory(GPU)
    assert calls == [GPU, GPU]
    assert timing.peak_memory(GPU) == 7


@pytest.fixture
def file(pages: Path) -> Any:
    with open_dataset(pages) as file:
        yield file


def test_both_decodes_give_equal_images(file: Reader) -> None:
    skipped: list[str] = []
    loader, device, jpeg = decoding.methods(file, 32, 8, CPU, skipped)
    first, second = (next(iter(method.batches(0))) for method in (loader, device))
    assert first.shape == second.shape == (8, 1, 32, 32)
    assert float((first - second).abs().max()) < 0.01  # the loader rounds to grey levels
    found = torch.cat([*jpeg.batches(0)])
    assert found.shape == (len(file), 1, 32, 32)
    assert float(found.mean()) == pytest.approx(float(first.mean()), abs=0.05)
    assert skipped == []
    for method in (loader, device, jpeg):
        method.close()


def test_runs_are_fewer_bytes_than_large_canvases(file: Reader) -> None:
    timer = timing.Timer(CPU)
    moved = {}
    for size in (16, 224):
        for method in decoding.methods(file, size, 8, CPU, []):
            moved[size, method.name] = method.kernels(timer, 1)[2]
            method.close()
    assert moved[224, "decode on the device"] == moved[16, "decode on the device"]
    assert moved[224, "loader's kernels"] > 336 * 448 > moved[224, "decode on the device"]


def test_a_decoder_that_the_device_lacks_is_skipped(
    file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision was compiled without nvJPEG, says this simulation."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("no nvJPEG\nin detail")

    monkeypatch.setattr(decoding, "decode_jpeg", refuse)
    skipped: list[str] = []
    found = decoding.methods(file, 28, 8, CPU, skipped)
    assert len(found) == 2
    assert skipped == ["JPEG, torchvision on the CPU, 28×28: no nvJPEG"]
    for method in found:
        method.close()


def test_the_bare_loop_trains(file: Reader) -> None:
    with join_processes() as processes:
        one = training.Training(processes, "fast", file, 3)
        assert one.recipe.train_images == 64
        assert one.recipe.stages[0].epochs == 3
        network = one.network()
        before = [weights.clone() for weights in network.parameters()]
        canvases, labels = torch.rand(64, 1, 72, 96), torch.zeros(64, dtype=torch.int64)
        seconds, images = training.bare_loop(network, one.recipe, canvases, labels, "no")
    assert (seconds > 0, images) == (True, 192)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_cpu_trains_the_recipes_that_it_is_fast_enough_for() -> None:
    skipped: list[str] = []
    on_cpu = command.recipes_of(command.Options(), CPU, skipped)
    assert {*on_cpu} == {*training.ON_A_CPU}
    assert len(skipped) == len(training.PRESETS) - len(on_cpu) > 0
    assert command.recipes_of(command.Options(), GPU, skipped) == [*training.PRESETS]
    assert command.recipes_of(command.Options(quick=True), GPU, skipped) == ["fast"]
    assert command.recipes_of(command.Options(recipes=("baseline",)), CPU, []) == ["baseline"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (command.Options(sizes=()), "sizes: got"),
        (command.Options(sizes=(8,)), "sizes: got"),
        (command.Options(rounds=0), "rounds: got 0"),
        (command.Options(steps=-1), "steps: got -1"),
        (command.Options(recipes=("fats",)), "recipes: got fats, expected one of fast, "),
    ],
)
def test_options_that_do_not_fit_are_refused(options: command.Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        command.check(options)


def test_a_gpu_is_named_in_the_tables() -> None:
    one = DecodingFigures("decode on the device", 28, (4.0,), (2.0,), 1e-6, 1e-6, 100.0, 5_000_000)
    result = DeviceResult("cuda", "GPU X", "bf16", 1, 8, 64, (0.0, 0.0), (one,), (), ())
    assert tables.place(result) == "on GPU X, bf16"
    (row,) = tables.decoding_rows(result)
    assert row[-1] == "5"
    assert "2.00 × the loader's kernels" in tables.answer(result)
    assert np.isclose(one.factor.value, 2)
