# A container image with raysweep, for Docker, Podman, Kubernetes, Ray's launcher and Apptainer: docs/containers.md.
#
# torch's wheels bring CUDA's libraries, so no image of CUDA's has to lie below: the host has the driver, and the container
# runtime brings it in. What changes seldom is installed first: an edit of the code installs neither torch nor Ray anew.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# g++ is for `compile: true`: torch.compile writes code for GPUs and CPUs alike, and builds it where it runs. Ray's launcher
# copies files with rsync and reaches its workers from the head by ssh. KubeRay asks by wget whether a node is healthy.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

# Everything lies in the Python of /usr/local, for /usr/local/bin is on the PATH of login shells, too, as Ray's launcher and
# KubeRay may start them. pip compiles to bytecode what it installs, so nobody has to write it at the start.
WORKDIR /usr/src/raysweep
COPY constraints.txt ./
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --root-user-action=ignore --constraint constraints.txt torch torchvision

# The rest of what pyproject.toml names, with those of its extras that are listed here.
ARG EXTRAS=aws
COPY pyproject.toml ./
RUN EXTRAS="${EXTRAS}" python -c "import os, tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in os.environ['EXTRAS'].replace(',', ' ').split()]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" > requirements.txt \
    && pip install --no-cache-dir --root-user-action=ignore --constraint constraints.txt --requirement requirements.txt

COPY LICENSE README.md ./
COPY raysweep raysweep
RUN pip install --no-cache-dir --root-user-action=ignore --no-deps . && rm -rf build ./*.egg-info

# Not root, and any other user can be given (`docker run --user`), so that files in mounted folders have their owner: the home
# is then writable like /tmp, and a user without a name here has one. Ray's launcher reads HOME from the image.
RUN useradd --uid 1000 --user-group --create-home --shell /bin/bash raysweep && chmod 1777 /home/raysweep
USER 1000:1000
WORKDIR /home/raysweep
# Of the driver, what computing needs. Which GPUs a container sees is not said here: whoever starts it says so.
# Packages in a home that is mounted from outside, as Apptainer does, must not stand before those in here.
# A cluster of `ray start` tells Ray's makers that it does not tell them of its use, once: the address keeps that here, too.
ENV HOME=/home/raysweep USER=raysweep PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9
LABEL org.opencontainers.image.title=raysweep org.opencontainers.image.licenses=Apache-2.0
CMD ["raysweep", "--help"]
