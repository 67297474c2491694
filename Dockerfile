# An image with genre-search for one machine. A Ray cluster on Kubernetes has its own: kubernetes/rayjob.yaml.
#
#   docker build --build-arg UID=$(id -u) --tag genre-search .
#   mkdir -p runs
#   docker run --rm --init --shm-size 4g --gpus all --volume ~/music:/music:ro --volume "$PWD/runs":/home/genre/runs \
#     --volume genre-search-cache:/home/genre/.cache genre-search run --data /music --name music
#   docker run --rm --volume "$PWD/runs":/home/genre/runs genre-search report runs/music
#
# UID makes the results yours. --gpus all needs the NVIDIA container toolkit and a driver for CUDA 13; leave it out on a
# machine without a GPU, where the same image works, with 4 GB of CUDA libraries that it does not use. To build without
# them, name an index that has builds of torch, torchvision and torchaudio for the CPU, at the pinned versions:
# --build-arg CPU_INDEX=URL. Ray's object store, 2 GiB, is in /dev/shm. The second volume keeps spectrograms, activations
# and ImageNet weights for the next search.
FROM python:3.12-slim AS build
ARG CPU_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /src
COPY constraints.txt ./
# first, so that a change to the sources does not download them again
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
