# The service (the default target) and the offline trainer (--target trainer), for CPU and CUDA: the CUDA libraries come
# with torch's wheels, so the host needs only NVIDIA's driver and container toolkit.
ARG PYTHON_IMAGE=python:3.12.8-slim-bookworm

# What builds; nothing of it but its results reaches an image.
FROM ${PYTHON_IMAGE} AS tools
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
WORKDIR /build
COPY constraints.txt ./
RUN python -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --no-cache-dir -q -c constraints.txt uv \
    && python -m venv --without-pip /opt/purigate

# The dependencies, in a layer of their own: several gigabytes that change only with their versions.
FROM tools AS dependencies
COPY pyproject.toml ./
RUN /opt/uv/bin/uv pip install -q --python /opt/purigate/bin/python -c constraints.txt -r pyproject.toml

# Our own code, a few megabytes with the embedded bundle. Each package is built from the rooms that its image serves; its
# commands begin with the interpreter that has the dependencies.
FROM tools AS service
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
RUN /opt/uv/bin/uv pip install -q --no-deps --python /opt/purigate/bin/python --target /opt/app -c constraints.txt -b constraints.txt . \
    && rm /opt/app/bin/purigate-train /opt/app/bin/purigate-evaluate

FROM tools AS training
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY trainer trainer
RUN /opt/uv/bin/uv pip install -q --no-deps --python /opt/purigate/bin/python --target /opt/app -c constraints.txt -b constraints.txt . \
    && rm /opt/app/bin/purigate /opt/app/bin/purigate-evaluate

# What both images share. NVIDIA's runtime reads which of the driver's libraries it has to bring.
FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/app/bin:/opt/purigate/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN groupadd --gid 10001 purigate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin purigate \
    && install -d -o purigate -g purigate -m 0750 /var/lib/purigate
COPY --from=dependencies /opt/purigate /opt/purigate

FROM runtime AS trainer
LABEL org.opencontainers.image.title="purigate-trainer" \
      org.opencontainers.image.description="Trains a classifier and its pool of purifiers, and writes a bundle" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN --mount=type=bind,from=tools,source=/opt/uv,target=/opt/uv \
    --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    --mount=type=bind,source=constraints.txt,target=/build/constraints.txt \
    UV_LINK_MODE=copy UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 /opt/uv/bin/uv pip install -q \
    --python /opt/purigate/bin/python -c /build/constraints.txt -r /build/pyproject.toml --extra train
COPY --from=training /opt/app /opt/app
USER 10001:10001
WORKDIR /var/lib/purigate
ENTRYPOINT ["purigate-train"]
CMD ["--help"]

FROM runtime AS gateway
# On a GPU Triton compiles the kernel of a pool in the first warm-up, and what launches it with a C compiler; it loads both
# from this folder, over which the deployments mount one that code can be loaded from. The versions are those of the base's
# Debian, with its fixes: another base names others.
ENV TRITON_CACHE_DIR=/var/cache/triton
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends "gcc=4:12.*" "libc6-dev=2.36-*" \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o purigate -g purigate -m 0750 /run/purigate \
    && install -d -o purigate -g purigate -m 0750 "$TRITON_CACHE_DIR"
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="purigate" \
      org.opencontainers.image.description="A gateway that defends an image classifier by patch-wise purification" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=service /opt/app /opt/app
# Another port is set with PURIGATE_PORT, not with --port: the health check reads it too.
ENV PURIGATE_HOST=0.0.0.0 \
    PURIGATE_PORT=8000 \
    PURIGATE_METRICS_PORT=9100
EXPOSE 8000 9100
USER 10001:10001
WORKDIR /var/lib/purigate
# SIGTERM drains (PURIGATE_DRAIN_TIMEOUT_MS). The process collects those that it starts itself (networks in processes), so
# it needs no init.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PURIGATE_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["purigate"]
CMD ["serve"]
