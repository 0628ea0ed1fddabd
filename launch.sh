#!/usr/bin/env bash
# The one door to inkrun: sets up the environment, prepares data, starts jobs. `./launch.sh --help`
# lists what it does. It knows processes, precision and CPUs; everything about training is an
# option of the jobs.
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
environment=${VIRTUAL_ENV:-$root/.venv}
python=$environment/bin/python

usage() {
  cat <<'END'
Usage: ./launch.sh [COMMAND] [ARGUMENTS]

  (none)          set up, prepare the data it finds, or synthetic ones, train part 1, say where
                  the results are
  setup [EXTRA…]  make .venv, or use the active virtual environment, and install inkrun into it;
                  extras: test, track, ffcv, bench
  prep            pictures → data/*.beton, once            (jobs/prep.py)
  synth           synthetic handwriting as PNG files       (jobs/synth.py)
  train JOB       train, for example: train part1          (jobs/part1.py)
  evaluate RUN    score a checkpoint on labelled pictures  (jobs/evaluate.py)
  report [RUN…]   gather runs into a page per part         (jobs/report.py)
  bench [WHAT]    measure the loader, or: prep, train, part1, reach, noise, synth
                  (jobs/bench_WHAT.py)
  test            ruff, mypy and the tests; with arguments: pytest alone, with them
  --help          this page; after a command: the command's own options

Options of train, anywhere after JOB; all others are the job's own:
  --processes N   processes on this machine (default: one per GPU, else one)
  --cpus N        CPU cores to use, all processes together (default: all)
  --precision P   no, bf16 or fp16 (default: bf16 where the hardware computes in it)

PYTHON=python3.12 ./launch.sh setup chooses the Python that .venv is made with.
END
}

# die STATUS LINE…: status 1 is for what the machine lacks, 2 for a wrong command.
die() {
  printf 'launch.sh: %s\n' "${@:2}" >&2
  exit "$1"
}

# The first Python that is new enough and can make environments.
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
    die 1 "$incomplete cannot make a virtual environment: its module venv is missing." \
      "On Debian or Ubuntu: apt install $incomplete-venv; then run this again."
  fi
  die 1 "no Python 3.11 or newer found among: ${PYTHON:-python3, python3.11 to python3.14}." \
    "On Debian or Ubuntu: apt install python3 python3-venv; then run this again."
}

usable_environment() {
  "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# What an installation is good for: this Python, this checkout, these dependencies.
state() {
  "$python" -c 'import sys; print(*sys.version_info[:2], *sys.argv[1:])' \
    "$(cksum <"$root/pyproject.toml")" "$root" 2>/dev/null
}

# set_up [EXTRA…]: install what the stamps in the environment do not vouch for.
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
      "Leave it (deactivate) and run this again: it makes an environment of its own."
  elif ! usable_environment; then
    current=$(find_python)
    "$current" -m venv --clear "$environment"
  fi

  for extra in "${missing[@]}"; do
    rm -f "$environment/.inkrun-$extra"
    [[ $extra == base ]] || extras+=,$extra
  done
  extras=${extras:+[${extras#,}]}
  echo "Installing inkrun$extras into $environment (the first time: some minutes, 6 GB)." >&2
  if [[ $extras == *ffcv* ]]; then # its build needs what is in the environment
    "${pip[@]}" "setuptools>=77"
    pip+=(--no-build-isolation)
  fi
  (cd "$root" && "${pip[@]}" -e ".$extras") ||
    die 1 "the installation failed: pip's reason is above. Run this again when it is mended."
  for extra in "${missing[@]}"; do
    state >"$environment/.inkrun-$extra"
  done
  echo "Installed in $SECONDS s." >&2
}

# Jobs run in the checkout, where data/ and runs/ are. Paths given from another folder start there:
# `enter_checkout ARGUMENT…` puts the arguments, as they are to be said in the checkout, in `arguments`.
enter_checkout() {
  local argument option="" paths='^--(source|out|data|runs|table|compare|grid|real|test|clean|part2|witness|resume|digits|mnist|auxiliary)'
  arguments=()
  for argument in "$@"; do
    if [[ $PWD != "$root" ]]; then
      if [[ $option =~ $paths$ && $argument != /* ]]; then
        argument=$PWD/$argument
      elif [[ $argument =~ $paths=[^/] ]]; then
        argument=${argument%%=*}=$PWD/${argument#*=}
      elif [[ $argument == */* && -e $PWD/$argument ]]; then
        argument=$PWD/$argument # the run to evaluate
      fi
    fi
    option=$argument
    arguments+=("$argument")
  done
  cd "$root"
}

# run JOB [ARGUMENT…]: becomes the job, so that exit status and signals are the job's own.
run() {
  local arguments
  set_up
  enter_checkout "${@:2}"
  exec "$python" "jobs/$1.py" "${arguments[@]}"
}

# accelerate and torch answer a process that ends with an error with pages of their own. The job has
# said what is wrong already, so only its exit status is passed on.
launcher='
import logging, signal, sys
from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

logging.disable()
try:
    main()
except ChildFailedError as error:
    # The first to fail; torch then ends the others with SIGTERM.
    failures = [(f.exitcode == -signal.SIGTERM, f.timestamp, f.exitcode, rank)
                for rank, f in error.failures.items()]
    *_, status, rank = min(failures)
    if status < 0:
        name = signal.Signals(-status).name
        print(f"launch.sh: process {rank} was ended by {name}", file=sys.stderr)
    sys.exit(status if status > 0 else 128 - status)
except SignalException as stop:
    sys.exit(128 + stop.sigval)
'

# Leaves the first so many of the cores that this process may use to the command that follows.
limiter='
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
os.execv(sys.argv[2], sys.argv[2:])
'

# train JOB [--processes N] [--cpus N] [ARGUMENT…]
train() {
  local job=$1 processes="" cpus="" arguments=() command=()
  [[ $job =~ ^[a-z0-9]+$ && -f $root/jobs/$job.py ]] ||
    die 2 "no job to train is called '$job'; try: ./launch.sh train part1"
  shift
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
  enter_checkout "${arguments[@]}"

  if [[ -z $processes && -e /dev/nvidiactl ]]; then
    processes=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')
  fi
  if ((${processes:-1} == 1)); then
    command=("$python") # all that accelerate's launcher does for one
  else
    command=("$python" -c "$launcher" --multi_gpu --num_processes "$processes" --num_machines 1
      --mixed_precision no --dynamo_backend no --main_process_port 0) # precision is the job's
  fi
  [[ -z $cpus ]] || command=("$python" -c "$limiter" "$cpus" "${command[@]}")
  exec "${command[@]}" "jobs/$job.py" "${arguments[@]}"
}

# Ruff, mypy and pytest over the whole tree, files of tests side by side on all cores; with arguments,
# pytest with them and nothing else.
check() {
  set_up test
  cd "$root"
  if (($# == 0)); then
    "$python" -m ruff check
    "$python" -m ruff format --check
    "$python" -m mypy
    set -- --numprocesses auto --dist loadfile --no-loadscope-reorder
  fi
  exec "$python" -m pytest "$@"
}

setup() {
  local extra
  for extra in "$@"; do
    [[ $extra =~ ^(test|track|ffcv|bench)$ ]] ||
      die 2 "no extra is called '$extra'; there are: test, track, ffcv, bench"
  done
  set_up "$@"
  echo "inkrun is set up; to use its commands: source $environment/bin/activate"
}

case ${1:-} in
  "")
    set_up
    cd "$root"
    "$python" jobs/prep.py part1 # without data it draws some
    train part1
    ;;
  -h | --help | help) usage ;;
  setup | train)
    if [[ $* == train || ${2:-} =~ ^(-h|--help)$ ]]; then usage; else "$@"; fi
    ;;
  prep | synth | evaluate | report) run "$@" ;;
  bench)
    if [[ ${2:-} =~ ^[a-z0-9]+$ && -f $root/jobs/bench_$2.py ]]; then
      run "bench_$2" "${@:3}"
    else
      run bench_loader "${@:2}"
    fi
    ;;
  test) check "${@:2}" ;;
  *) die 2 "unknown command '$1'; ./launch.sh --help lists them." ;;
esac
