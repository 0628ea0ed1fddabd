"""What a user says to accelerate's launcher, which passes it on in environment variables."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from job_started import QUICK, refusal
from tiny import write_set

from pipeline.errors import UserError
from pipeline.runtime import launch
from pipeline.training.distributed import join_processes


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """Restore the number of threads, which a launcher's words change."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "value", "options", "reason"),
    [
        (
            "ACCELERATE_MIXED_PRECISION",
            "bf16",
            ["--precision", "no"],
            "precision: got no, and bf16 by the launcher, expected one",
        ),
        ("ACCELERATE_MIXED_PRECISION", "fp8", [], "precision: got the launcher's fp8, expected"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", [], "precision: got 'fp16' on a CPU"),
        ("ACCELERATE_USE_FSDP", "true", [], "accelerate: got --use_fsdp, expected plain processes"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", [], "accelerate: got --dynamo_backend"),
    ],
)
def test_words_that_do_not_count_are_refused_in_one_line(
    name: str,
    value: str,
    options: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    data = write_set(tmp_path / "tiny.beton")
    assert reason in refusal(["--data", str(data), *QUICK, *options], monkeypatch, capsys)
    assert not (tmp_path / "runs").exists()


def test_the_launchers_own_no_leaves_the_choice_to_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    launch.check_launcher()
    assert launch.launched_precision() is None
    monkeypatch.setattr(launch, "_launcher", lambda _: [b"accelerate", b"--mixed_precision", b"no"])
    assert launch.launched_precision() == "no"


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: there is no GPU here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with (
        pytest.raises(UserError, match="processes: got 3, expected at most 2, one for each GPU"),
        join_processes(),
    ):
        raise AssertionError("joined")
