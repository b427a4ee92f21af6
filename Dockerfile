# The sidecar in an image: docker build -t tls-sidecar:0.1.0 .
#
# The last stage begins with nothing: it holds Python, the program, and what they are linked with (image/rootfs.py).
# Nothing here names an architecture; docker buildx build --platform linux/amd64,linux/arm64 makes both.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# The last is the time of all files in our wheel: the same source makes the same wheel.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore SOURCE_DATE_EPOCH=1577836800
COPY requirements /build/requirements
# Our hot path is compiled by its types, and so by those of the dependencies too.
RUN python3 -m venv /build/tools \
    && /build/tools/bin/pip install --quiet --only-binary :all: --require-hashes \
        --requirement /build/requirements/build.txt --requirement /build/requirements/run.txt \
    && python3 -m venv --without-pip /opt/sidecar \
    && /build/tools/bin/pip --python /opt/sidecar/bin/python install --quiet --no-compile --only-binary :all: \
        --require-hashes --requirement /build/requirements/run.txt
WORKDIR /build/source
COPY LICENSE pyproject.toml setup.cfg setup.py ./
COPY sidecar sidecar
# What of the dependencies is not for running: tests, stubs, C sources, programs of theirs, and the parts of Twisted that
# speak other protocols.
RUN SIDECAR_COMPILE=1 /build/tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/wheels . \
    && /build/tools/bin/pip --python /opt/sidecar/bin/python install --quiet --no-compile --no-deps --no-index \
        /build/wheels/*.whl \
    && strip --strip-unneeded /opt/sidecar/lib/python3*/site-packages/sidecar__mypyc.*.so \
        /opt/sidecar/lib/python3*/site-packages/sidecar/*/*.so \
    && find /opt/sidecar/lib -depth -type d \( -name test -o -name tests \) -exec rm -r {} + \
    && find /opt/sidecar/lib -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name '*.pyx' \) -delete \
    && find /opt/sidecar/bin -type f -not -name sidecar -delete \
    && for part in conch enterprise mail names newsfragments pair positioning runner scripts spread tap trial web words; do \
        rm -r /opt/sidecar/lib/python3*/site-packages/twisted/"$part"; \
    done
COPY entrypoint.sh image/rootfs.py /build/
# Bytecode is valid by its place alone: no source is looked at, and no timestamp makes two builds differ. Without columns,
# which only tracebacks show, it is loaded faster. A new volume that is mounted on /certs or /ca
# belongs to the user who runs.
RUN /usr/bin/python3 /build/rootfs.py /rootfs /opt/sidecar \
    && ln -s "$(basename "$(readlink -f /usr/bin/python3)")" /rootfs/usr/bin/python3 \
    && PYTHONNODEBUGRANGES=1 /usr/bin/python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s /rootfs \
        /rootfs/usr/lib/python3* /rootfs/opt/sidecar/lib \
    && chroot /rootfs /opt/sidecar/bin/sidecar version \
    && install --mode=0755 /build/entrypoint.sh /rootfs/usr/bin \
    && install --directory --owner=65532 --group=65532 --mode=0700 /rootfs/certs /rootfs/ca

# What is in it, for scanners and lawyers: docker build --target sbom --output type=local,dest=. .
FROM build AS bill
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY image/sbom.py /build/sbom.py
RUN python3 -m venv /build/sbom \
    && /build/sbom/bin/pip install --quiet --only-binary :all: --require-hashes --requirement /build/requirements/sbom.txt \
    && /build/sbom/bin/cyclonedx-py environment --output-reproducible --output-format JSON /opt/sidecar/bin/python \
        | /build/sbom/bin/python /build/sbom.py /rootfs > /build/sbom.cdx.json

FROM scratch AS sbom
COPY --from=bill /build/sbom.cdx.json /

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tls-sidecar" \
    org.opencontainers.image.description="TLS in front of any app: terminates TLS on 443 and forwards HTTP over localhost" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /rootfs /
COPY --from=bill /build/sbom.cdx.json /usr/share/sbom/
ENV PATH=/opt/sidecar/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 443
STOPSIGNAL SIGTERM
# The first look comes when the start is over, even on a quarter of a CPU: it would take its share of that.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --start-interval=2s --retries=3 CMD ["sidecar", "healthcheck"]
ENTRYPOINT ["/usr/bin/entrypoint.sh"]
