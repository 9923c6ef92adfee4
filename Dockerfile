# The image of a SageMaker training job. Build and push it once; `rlnas sagemaker launch` sends newer code along.
#
#   docker build --tag ACCOUNT.dkr.ecr.REGION.amazonaws.com/rlnas:1 .
#
# For CPU instances add: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM python:3.11-slim

# The default build of torch brings CUDA along; an index of CPU builds comes first where one is named.
ARG TORCH_INDEX=""

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HOME=/tmp/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# A C++ compiler, for --mode compiled.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/rlnas
COPY setup.cfg setup.py constraints.txt README.md ./
COPY rlnas ./rlnas
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch; \
    fi \
    && pip install --constraint constraints.txt '.[demo,nvml,onnx,optuna,ray]'

# SageMaker runs `docker run IMAGE train`, and a tuning job cannot name anything else. A script in the image and no
# console script of the package, which would put a `train` on the path of everyone who installs rlnas. With `exec`
# rlnas is the container's process, so that SIGTERM reaches it.
RUN printf '#!/bin/sh\nexec rlnas sagemaker train\n' > /usr/local/bin/train \
    && chmod 755 /usr/local/bin/train

# No credentials, no data, no ENTRYPOINT: `train` is what the service adds to the command.
WORKDIR /opt/ml
CMD ["train"]
