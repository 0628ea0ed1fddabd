"""Signals to whole jobs: while they import, while a checkpoint is written, at any moment.

Simulated: slow storage is a save that sleeps; a scheduler's signal to a whole job is sent to the
launcher and to the processes that it started.
"""

import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import forked
import killer
import pytest
from job_started import ENVIRONMENT, JOB, QUICK, folder_of_the_run
from tiny import write_set

from pipeline.experiments import command

SLOW = """
import sys, time
from pathlib import Path
from jobs import part1
from pipeline.training.checkpoint import Checkpoints

save = Checkpoints.save

def slow_save(*arguments, **options):
    Path("saving").touch()
    time.sleep(2)
    return save(*arguments, **options)

Checkpoints.save = slow_save
sys.exit(part1.main())
"""


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_signals_of_a_whole_job_wait_for_a_slow_checkpoint(tmp_path: Path) -> None:
    """SIGUSR1 as SLURM sends it before the time limit, then SIGTERM and SIGHUP at the limit."""
    data = write_set(tmp_path / "tiny.beton")
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    *command, _, _ = killer.launcher(2)
    with subprocess.Popen(
        [*command, str(script), "--data", str(data), *QUICK, "--epochs", "400"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(killer.ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        wait_for(tmp_path / "saving", job)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            killer.send(job.pid, killer.Kill(number, None, 0))
            time.sleep(0.1)
        _, err = job.communicate()
    assert job.returncode == 128 + signal.SIGUSR1, err
    run = folder_of_the_run(tmp_path)
    steps = [path.name for path in (run / "checkpoints").glob("step-*")]
    assert f"stopped by SIGUSR1 after step {int(max(steps)[5:])}; resume: ./launch.sh train" in err
    assert err.count("resume: ") == 1
    assert "Traceback" not in err
    assert not (run / ".lock").exists()


IGNORING = """
import os, signal, time
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(f"started-{os.environ['RANK']}").touch()
time.sleep(100)
"""


def test_a_second_ctrl_c_ends_processes_that_do_not(tmp_path: Path) -> None:
    """Simulated: trainings that save for longer than the user wants to wait."""
    script = tmp_path / "ignoring.py"
    script.write_text(IGNORING)
    *command, _, _ = killer.launcher(2)
    with subprocess.Popen(
        [*command, str(script)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        for rank in (0, 1):
            wait_for(tmp_path / f"started-{rank}", job)
        started = time.monotonic()
        os.killpg(job.pid, signal.SIGINT)
        time.sleep(1.2)
        assert job.poll() is None
        os.killpg(job.pid, signal.SIGINT)
        _, err = job.communicate()
    assert job.returncode == 130
    assert time.monotonic() - started < 15  # the launcher alone would wait for 30 s
    assert "Traceback" not in err


CLOSED = """
import os, sys
from pipeline.runtime.progress import make_console, progress
from pipeline.runtime.signals import StopSignals, raising_signals

context = {"stop": StopSignals, "raise": raising_signals}[sys.argv[1]]
try:
    with progress(make_console(), "work", 10**6) as advance, context() as signals:
        print("started", flush=True)
        while signals is None or not signals.received:
            advance(1)
except BaseException as error:
    print(error)
    print(error, file=sys.stderr, flush=True)
print("ended", flush=True)
os._exit(7)
"""


@pytest.mark.parametrize("kind", ["stop", "raise"])
def test_a_closed_terminal_drops_what_is_printed(kind: str) -> None:
    """The real hangup of a pseudoterminal, whose writes then fail with EIO."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(killer.ROOT)
        os.execv(sys.executable, [sys.executable, "-c", CLOSED, kind])
    shown = b""
    while b"started" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


@pytest.mark.parametrize("launched", [False, True])
def test_an_interrupt_in_the_first_second_is_one_line(launched: bool, tmp_path: Path) -> None:
    command = killer.launcher(2)[:-2] if launched else [sys.executable]
    with subprocess.Popen(
        [*command, JOB], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        time.sleep(0.5)
        os.killpg(job.pid, signal.SIGINT)
        _, err = job.communicate()
    line = "launch.sh: interrupted\n" if launched else "interrupted\n"
    assert (job.returncode, err) == (130, line)


def test_trainings_that_are_killed_at_any_moment_are_those_that_are_not(tmp_path: Path) -> None:
    report = killer.kill_many(tmp_path, 3, [1], epochs=6)
    assert report.wrong == []
    assert report.kills.total() >= 3


ENDING = """
import sys
from pathlib import Path
from pipeline.experiments import command
from pipeline.runtime.signals import Stopped
from pipeline.training.distributed import join_processes

def job():
    with join_processes("no") as processes:
        processes.wait()
        if sys.argv[1] == "stop":
            raise Stopped(2, "step 7", Path("runs/x"))
        if sys.argv[1] == "leave":
            sys.exit(141)

try:
    status = command.call("part1", job)
finally:
    print("returned")
sys.exit(status)
"""


@pytest.mark.parametrize(("how", "status"), [("stop", 130), ("leave", 141), ("end", 0)])
def test_processes_that_leave_their_group_undestroyed_end_at_once(
    how: str, status: int, tmp_path: Path
) -> None:
    """Python's own exit aborts where gloo's threads outlive the group, once in some dozens."""
    script = tmp_path / "ending.py"
    script.write_text(ENDING)
    for done in forked.run_together(2, [script, how], tmp_path, ENVIRONMENT):
        assert done.returncode == status, done.stderr
        assert ("returned" in done.stdout) == (how == "end")


def test_a_lost_process_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Simulated: the error that gloo raises in a process whose peer was killed."""

    def fail(words: str) -> None:
        raise RuntimeError(words)

    lost = "[gloo/transport/tcp/pair.cc:561] Connection closed by peer"
    assert command.call("part1", partial(fail, lost)) == 2
    line = "part1: lost the connection to another process of the launch\n"
    assert capsys.readouterr().err == line
    with pytest.raises(RuntimeError, match="another one"):
        command.call("part1", partial(fail, "another one"))
