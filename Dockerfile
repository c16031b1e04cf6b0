# Framewire on a CPU, or on a desktop GPU with TensorRT-RTX (needs no CUDA toolkit in the image).
#
#   docker build -t framewire .                              # CPU
#   docker build --build-arg EXTRA=rtx -t framewire:gpu .    # desktop GPU: docker run --gpus all ...
#   docker run --rm -p 5555:5555 framewire demo --publish tcp://*:5555
FROM python:3.12-slim-bookworm

ARG EXTRA=""
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    FRAMEWIRE_METRICS=127.0.0.1:9464

# What OpenCV's wheel links against.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/framewire
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY pipelines pipelines
COPY configs configs
# The versions are those of pyproject.toml.
# hadolint ignore=DL3013
RUN pip install ".[metrics${EXTRA:+,${EXTRA}}]" \
    && useradd --create-home --uid 1000 --groups video framewire \
    && mkdir -p /models && chown framewire:framewire /models
USER 1000
WORKDIR /home/framewire
VOLUME /models
EXPOSE 5555

# Healthy while the threads of the engine run. For Prometheus outside: -e FRAMEWIRE_METRICS=0.0.0.0:9464 -p 9464:9464
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["framewire", "health"]
ENTRYPOINT ["framewire"]
CMD ["demo", "--publish", "tcp://*:5555"]
