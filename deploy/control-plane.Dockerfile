# The control plane's image: Python, what the control plane needs from the lock, and its own packages. Nothing else.
# A mirror, or a certificate to trust, is a build argument; it is used in the builder only and is in no layer of the image.
FROM python:3.11-slim-bookworm AS builder
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/runyard
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY deploy/lock_subset.py deploy/
RUN python3 deploy/lock_subset.py build > build.lock \
    && python3 deploy/lock_subset.py base control-plane > service.lock \
    && /opt/build/bin/pip install --quiet --require-hashes --no-deps -r build.lock \
    && /opt/build/bin/pip --python /opt/runyard/bin/python install --quiet --require-hashes --no-deps -r service.lock
COPY shared shared
COPY control_plane control_plane
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/runyard/bin/python install --quiet --no-deps --no-index dist/*.whl \
    && /opt/build/bin/pip --python /opt/runyard/bin/python check
COPY deploy/probe.py /opt/runyard/probe.py

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 runyard && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent runyard
COPY --from=builder /opt/runyard /opt/runyard
ENV PATH=/opt/runyard/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CONTROL_PLANE_HOST=0.0.0.0
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/runyard/probe.py", "http://127.0.0.1:3000/readyz"]
CMD ["python", "-m", "control_plane"]
