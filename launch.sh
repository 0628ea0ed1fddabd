#!/usr/bin/env bash
# The entry point of inkrun: sets up the environment, prepares data, starts jobs. `./launch.sh --help`
# lists the commands. It knows processes and CPUs; everything about training is an option of the
# jobs.
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
environment=${VIRTUAL_ENV:-$root/.venv}
python=$environment/bin/python

usage() {
  cat <<'END'
Usage: ./launch.sh [COMMAND] [ARGUMENTS]

  (none)          set up, prepare data from data/raw (synthetic pages without data), train part 1
  setup [EXTRA…]  create .venv, or use the active virtual environment, and install inkrun into it;
                  extras: test, track, ffcv, bench, heic, parquet, explain, export, app,
                  browser
  prep [NAME…]    convert images to data/NAME.beton           (jobs/prep.py)
  synth           generate synthetic handwriting as PNG files (jobs/synth.py)
  train NAME      train part1, part2, part3, emnist, fashion or cifar10 (jobs/NAME.py), or a
                  network on your own dataset data/NAME.beton (jobs/classify.py)
  sweep NAME      train NAME with several options or seeds    (jobs/sweep.py)
  evaluate RUN    score a trained network on labelled images  (jobs/evaluate.py)
  report [RUN…]   write one HTML page for each job or dataset (jobs/report.py)
  bench [WHAT]    run a benchmark: throughput, convergence, scaling, device, choices, diagnosis,
                  part1, predict, prep or synth; all (default): those with a page of results, so
                  far throughput                              (jobs/bench/WHAT.py)
  test            run ruff, mypy and the tests; with arguments: only pytest, with these arguments
  --help          print this page; after a command: its options

Commands that look at a network or use it (jobs/tools/):
  predict RUN PATH…  predict images of any kind
  explain RUN     show what a network gets wrong, where it looks, and suspicious labels
  app [RUN]       draw characters or drop images on a local web page, and see the predictions
  export RUN      write a network as ONNX, pt2, a model repository or an app
  find-lr NAME    find a learning rate for a training
  summary NAME    print the layers and the memory of a network
  show NAME       save an image of an augmented training batch

Options of train, anywhere after NAME; all others are options of the job:
  --processes N   number of processes on this machine (default: 1; at most one for each GPU)
  --cpus N        number of CPU cores for all processes together (default: all)
  --precision P   no, bf16 or fp16 (default: bf16 where the hardware supports it)

Relative paths in arguments start at the folder that you call launch.sh from; RUN may also start at
the checkout. PYTHON=python3.12 ./launch.sh setup chooses the Python of .venv.
END
}

# die STATUS LINE…: status 1 means that the machine lacks something, 2 that the command is invalid.
die() {
  printf 'launch.sh: %s\n' "${@:2}" >&2
  exit "$1"
}

# Print the first Python that is new enough and can create environments.
find_python() {
  local candidate incomplete=""
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    incomplete=${incomplete:-${candidate##*/}}
  done
  if [[ -n $incomplete ]]; then
    die 1 "$incomplete cannot create a virtual environment: its module venv is missing." \
      "On Debian or Ubuntu: apt install $incomplete-venv; then run this again."
  fi
  die 1 "no Python 3.11 or newer found among: ${PYTHON:-python3, python3.11 to python3.14}." \
    "On Debian or Ubuntu: apt install python3 python3-venv; then run this again."
}

usable_environment() {
  "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Print what an installation depends on: this Python, this checkout, these dependencies.
state() {
  "$python" -c 'import sys; print(*sys.version_info[:2], *sys.argv[1:])' \
    "$(cksum <"$root/pyproject.toml")" "$root" 2>/dev/null
}

cost="some minutes, 6 GB" # of a first installation

# set_up [EXTRA…]: install the extras whose stamps in the environment are missing or outdated.
set_up() {
  local extra current extras="" pip=("$python" -m pip install -qq --disable-pip-version-check)
  local missing=()
  current=$(state) || true
  for extra in base "$@"; do
    [[ -n $current && $(cat "$environment/.inkrun-$extra" 2>/dev/null) == "$current" ]] ||
      missing+=("$extra")
  done
  ((${#missing[@]})) || return 0

  if [[ -n ${VIRTUAL_ENV:-} ]]; then
    usable_environment || die 1 "no Python 3.11 or newer with pip in the active $environment." \
      "Run: deactivate; then run this again: it creates an environment of its own."
  elif ! usable_environment; then
    current=$(find_python)
    "$current" -m venv --clear "$environment"
  fi

  for extra in "${missing[@]}"; do
    rm -f "$environment/.inkrun-$extra"
    [[ $extra == base ]] || extras+=,$extra
  done
  extras=${extras:+[${extras#,}]}
  SECONDS=0
  [[ ${missing[0]} == base ]] || cost="a minute" # extras are small beside PyTorch
  echo "Installing inkrun$extras into $environment (the first time: $cost)." >&2
  if [[ $extras == *ffcv* ]]; then # its build needs packages of the environment
    "${pip[@]}" "setuptools>=77"
    pip+=(--no-build-isolation)
  fi
  (cd "$root" && "${pip[@]}" -e ".$extras") ||
    die 1 "the installation failed: pip's reason is above. Fix it and run this again."
  for extra in "${missing[@]}"; do
    state >"$environment/.inkrun-$extra"
  done
  echo "Installed in $SECONDS s." >&2
}

# use_overlay EXTRA: from here on, use an environment of the extra's own, inside the main one and laid
# over it. It sees the main packages. Versions that conflict with them, such as Gradio's Pillow, are
# installed here and hide them; the main environment stays as it is.
use_overlay() {
  local main main_python=$python
  set_up
  main=$(state)
  environment+=/$1
  python=$environment/bin/python
  cost="a minute, 0.2 GB"
  if [[ $(state) != "$main" ]]; then # missing, or of another Python
    "$main_python" "$root/pipeline/runtime/overlay.py" "$environment" ||
      die 1 "$environment cannot be created."
  fi
  set_up "$1"
}

# Jobs run in the checkout, where data/ and runs/ are. They resolve relative paths in their arguments
# against the caller's folder.
enter_checkout() {
  if [[ $PWD == "$root" ]]; then unset INKRUN_CALLER; else export INKRUN_CALLER=$PWD; fi
  cd "$root"
}

# run JOB [ARGUMENT…]: becomes the job, so that exit status and signals are the job's own.
run() {
  set_up
  enter_checkout
  exec "$python" "jobs/$1.py" "${@:2}"
}

# Accelerate and torch print long tracebacks of their own when a process fails. The job has printed
# its error already, so only its exit status is passed on. The first signal goes to all processes.
# Later ones are ignored while the processes stop, but for a Ctrl-C more than a second later.
launcher='
import os, signal, sys, time

signals = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
    signals.append(signal.SIGHUP)
stopped = 0.0

def processes():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]

def stop(number, frame):
    global stopped
    if stopped:
        if number == signal.SIGINT and time.monotonic() - stopped > 1:
            for process in processes():  # which ignore it: one of them may be saving
                os.kill(process, signal.SIGKILL)
        return
    stopped = time.monotonic()
    if not processes():
        if number == signal.SIGINT:
            os.write(2, b"launch.sh: interrupted\n")
        os._exit(128 + number)
    raise SignalException("stopped", signal.Signals(number))

for number in signals:
    signal.signal(number, stop)
for name in ("TORCHELASTIC_SIGNALS_TO_HANDLE", "PET_SIGNALS_TO_HANDLE"):
    os.environ[name] = "SIGQUIT"  # and no other one is handled by torch

import logging
from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

logging.disable()
try:
    main()
except ChildFailedError as error:
    # The first process that failed; torch then stops the others with SIGTERM.
    failures = [(f.exitcode == -signal.SIGTERM, f.timestamp, f.exitcode, rank)
                for rank, f in error.failures.items()]
    *_, status, rank = min(failures)
    if status < 0:
        name = signal.Signals(-status).name
        print(f"launch.sh: process {rank} was killed by {name}", file=sys.stderr)
    sys.exit(status if status > 0 else 128 - status)
except SignalException as stop:
    sys.exit(128 + stop.sigval)
'

# Runs a command on the first N of the cores that this process may use.
limiter='
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
os.execv(sys.argv[2], sys.argv[2:])
'

# The jobs of train; any other name is that of a dataset, for the job classify.
jobs='part1|part2|part3|emnist|fashion|cifar10|classify'

# Print a dataset's path, relative to the caller's folder where that is the checkout.
data_of() {
  if [[ $PWD == "$root" ]]; then echo "data/$1.beton"; else echo "$root/data/$1.beton"; fi
}

# train NAME [--processes N] [--cpus N] [ARGUMENT…]
train() {
  local job=$1 processes="" cpus="" arguments=() command=()
  shift
  if [[ ! $job =~ ^($jobs)$ ]]; then # a dataset
    [[ $job =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] ||
      die 2 "train: got '$job', expected ${jobs//|/, }, or the name of a dataset"
    if [[ -e $root/data/$job.beton || " $* " == *" --help "* ]]; then
      arguments=(--data "$(data_of "$job")")
    elif [[ " $* " != *" --resume"[\ =]* ]]; then # a run knows its dataset
      die 2 "train: data/$job.beton is not there; make it: ./launch.sh prep $job --source ARCHIVE"
    fi
    job=classify
  fi
  while (($#)); do
    case $1 in
      --processes=* | --cpus=*)
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
        continue
        ;;
      --processes | --cpus)
        (($# > 1)) || die 2 "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
      *) arguments+=("$1") ;;
    esac
    shift
  done
  [[ $processes =~ ^([1-9][0-9]*)?$ ]] || die 2 "--processes: expected a number, got $processes"
  [[ $cpus =~ ^([1-9][0-9]*)?$ ]] || die 2 "--cpus: expected a number, got $cpus"
  set_up
  enter_checkout

  if ((${processes:-1} == 1)); then
    command=("$python") # one process needs no launcher
  else
    # A configuration of its own: the user's is for other programs.
    command=("$python" -c "$launcher" --config_file "$root/jobs/accelerate.yaml"
      --num_processes "$processes" --main_process_port 0)
  fi
  [[ -z $cpus ]] || command=("$python" -c "$limiter" "$cpus" "${command[@]}")
  exec "${command[@]}" "jobs/$job.py" "${arguments[@]}"
}

# Run ruff, mypy and all tests, test files in parallel on all cores; with arguments, only pytest.
check() {
  set_up test
  cd "$root"
  unset PYTHONDONTWRITEBYTECODE # or hundreds of processes compile the same files
  if (($# == 0)); then
    "$python" -m ruff check
    "$python" -m ruff format --check
    "$python" -m mypy
    set -- --numprocesses auto --dist loadfile --no-loadscope-reorder
  fi
  exec "$python" -m pytest "$@"
}

extras='test|track|ffcv|bench|heic|parquet|explain|export|app|browser' # of pyproject.toml

setup() {
  local extra main=$environment others=()
  for extra in "$@"; do
    [[ $extra =~ ^($extras)$ ]] || die 2 "setup: got '$extra', expected one of ${extras//|/, }"
    [[ $extra == app ]] || others+=("$extra")
  done
  set_up "${others[@]}"
  ((${#others[@]} == $#)) || use_overlay app
  echo "inkrun is installed. To use its commands: source $main/bin/activate"
}

case ${1:-} in
  "")
    set_up
    cd "$root"
    "$python" jobs/prep.py part1 # synthetic pages without data
    train part1
    ;;
  -h | --help | help) usage ;;
  setup | train)
    if [[ $* == train || ${2:-} =~ ^(-h|--help)$ ]]; then usage; else "$@"; fi
    ;;
  prep | synth | sweep | evaluate | report) run "$@" ;;
  predict | show | summary) run "tools/$1" "${@:2}" ;;
  find-lr) run tools/find_lr "${@:2}" ;;
  explain | export)
    set_up "$1" # its extra
    run "tools/$1" "${@:2}"
    ;;
  app)
    use_overlay app
    enter_checkout
    exec "$python" jobs/tools/app.py "${@:2}"
    ;;
  bench)
    if [[ ${2:-} =~ ^[a-z0-9]+$ && -f $root/jobs/bench/$2.py ]]; then
      run "bench/$2" "${@:3}"
    else
      run bench/all "${@:2}"
    fi
    ;;
  test) check "${@:2}" ;;
  *) die 2 "unknown command '$1'; ./launch.sh --help lists them." ;;
esac
