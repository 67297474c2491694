# An image with genre-search for one machine. It has not been built yet, because Docker was not available. For a Ray
# cluster on Kubernetes, see kubernetes/rayjob.yaml, which has its own image.
#
#   docker build --build-arg UID=$(id -u) --tag genre-search .
#   mkdir -p runs
#   docker run --rm --init --shm-size 4g --gpus all --volume ~/music:/music:ro --volume "$PWD/runs":/home/genre/runs \
#     --volume genre-search-cache:/home/genre/.cache genre-search run --data /music --name music
#   docker run --rm --volume "$PWD/runs":/home/genre/runs genre-search report runs/music
#
# With UID, the results belong to your user. --gpus all needs the NVIDIA container toolkit and a driver for CUDA 13; leave
# it out on a machine without a GPU: the same image works there, although it contains 4 GB of unused CUDA libraries. To
# build without them, give an index that has CPU builds of torch, torchvision and torchaudio in the pinned versions:
# --build-arg CPU_INDEX=URL (not tested). Ray's object store of 2 GiB is in /dev/shm. The second volume keeps
# spectrograms, activations and ImageNet weights for the next search.
FROM python:3.12-slim AS build
ARG CPU_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /src
COPY constraints.txt ./
# installed first, so that a change to the sources does not download them again
RUN python -m pip install ${CPU_INDEX:+--extra-index-url "$CPU_INDEX"} --constraint constraints.txt torch torchaudio torchvision
COPY pyproject.toml README.md LICENSE ./
COPY genre_core genre_core
COPY search search
RUN python -m pip install --constraint constraints.txt . && python -m pip check \
    && python -c "import torch, torchaudio, torchvision"

FROM python:3.12-slim
ARG UID=1000
RUN useradd --create-home --uid "$UID" genre
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER $UID
WORKDIR /home/genre
RUN mkdir runs .cache
ENTRYPOINT ["genre-search"]
CMD ["--help"]
