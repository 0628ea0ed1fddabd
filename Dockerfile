# inkrun in a container. docs/docker.md says how to build and use it.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# An additional package index: that of PyTorch's wheels for CPUs saves 5 GB of CUDA libraries.
ARG TORCH_INDEX=
ARG UID=1000

# Any version of Debian's Python from 3.11 on will do.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  # Some images have a user 1000 already.
  && useradd --non-unique --uid "${UID}" --home-dir /inkrun/home --no-create-home inkrun \
  && install --directory --owner inkrun --group inkrun /inkrun /inkrun/home \
    /inkrun/beton /inkrun/data /inkrun/jobs /inkrun/pipeline /inkrun/runs
# Caches. Any user (docker run --user) can write there.
ENV HOME=/inkrun/home NUMBA_CACHE_DIR=/inkrun/home/numba PYTHONUNBUFFERED=1
WORKDIR /inkrun
USER ${UID}

# Dependencies, which change less often than the code.
COPY --chown=inkrun pyproject.toml README.md LICENSE launch.sh ./
COPY --chown=inkrun beton/__init__.py beton/
COPY --chown=inkrun pipeline/__init__.py pipeline/
COPY --chown=inkrun jobs/__init__.py jobs/
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" ./launch.sh setup app

COPY --chown=inkrun beton/ beton/
COPY --chown=inkrun pipeline/ pipeline/
COPY --chown=inkrun jobs/ jobs/
# Compile the code and its kernels now, instead of in every container.
RUN .venv/bin/python -m compileall -q beton pipeline jobs \
  && ./launch.sh prep part1 --synthetic --writers 2 --auxiliary-writers 1 \
  && ./launch.sh train part1 --trial \
  && ./launch.sh evaluate runs/part1/latest --source data/part1.beton \
  && rm -r data/* runs/* \
  && chmod -R a+rwX home

VOLUME ["/inkrun/data", "/inkrun/runs"]
EXPOSE 7860
ENTRYPOINT ["/inkrun/launch.sh"]
CMD ["--help"]
