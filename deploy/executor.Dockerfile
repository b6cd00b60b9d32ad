# The executor's image: Python, Node, the pinned engine CLIs, what the executor needs from the lock, and its own packages.
# A mirror, or a certificate to trust, is a build argument; it is used in the builders only and is in no layer of the image.
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
    && python3 deploy/lock_subset.py base executor > service.lock \
    && /opt/build/bin/pip install --quiet --require-hashes --no-deps -r build.lock \
    && /opt/build/bin/pip --python /opt/runyard/bin/python install --quiet --require-hashes --no-deps -r service.lock
COPY shared shared
COPY executor executor
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/runyard/bin/python install --quiet --no-deps --no-index dist/*.whl \
    && /opt/build/bin/pip --python /opt/runyard/bin/python check
COPY deploy/probe.py /opt/runyard/probe.py

FROM node:24-bookworm-slim AS engines
ARG NPM_CONFIG_REGISTRY
ARG NODE_EXTRA_CA_CERTS
WORKDIR /engines
COPY engines/package.json engines/package-lock.json engines/.npmrc ./
# What scripts/install_engines.py does; `npm ci` refuses the lock files that two of the engines bring along.
RUN npm install --no-save --omit=dev --no-audit --no-fund

FROM python:3.11-slim-bookworm
# What engines call besides themselves. An image for a team's own toolchain adds to the list, or starts FROM this one.
ARG TOOLS="bubblewrap git"
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends $TOOLS && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 runyard && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent runyard \
    && install -d -o runyard -g runyard -m 0700 /var/lib/runyard
COPY --from=engines /usr/local/bin/node /usr/local/bin/node
COPY --from=engines /engines /opt/runyard/engines
COPY --from=builder /opt/runyard /opt/runyard
COPY scripts/install_engines.py /opt/runyard/engines/install_engines.py
# Each engine answers with the version its adapter was recorded with, or there is no image.
RUN HOME=/tmp/asked /opt/runyard/bin/python /opt/runyard/engines/install_engines.py --check --dir /opt/runyard/engines && rm -rf /tmp/asked
COPY deploy/executor_place.py /opt/runyard/executor_place.py
ENV PATH=/opt/runyard/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    EXECUTOR_HOST=0.0.0.0 EXECUTOR_ENGINES_DIR=/opt/runyard/engines
USER 10001:10001
VOLUME /var/lib/runyard
EXPOSE 8090
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/runyard/probe.py", "http://127.0.0.1:8090/readyz"]
CMD ["python", "/opt/runyard/executor_place.py"]
