# Images of migration-runbook.
#   worker          what runs in production: `runbook` with PostgreSQL's client programs, git and Python with Alembic
#   example-worker  the same with the example service's packages, releases and profile, for docker-compose.yml
#   example         the example service: API and Celery worker
# The services of a team bring their own Python: their profile's `repository.prepare` installs it into the checkout, or an
# image built upon this one has it already, as example-worker does.

ARG NODE_IMAGE=node:24.21.0-trixie-slim
# Client programs of the server's own major version: pg_restore of another one is refused by the step `tooling.verify`.
ARG POSTGRES_IMAGE=postgres:18.6-trixie
ARG POSTGRES_MAJOR=18
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${POSTGRES_IMAGE} AS postgres

FROM ${NODE_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends git ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
RUN npm run build
COPY examples ./examples
RUN node examples/whisper-transcriber/build-repository.ts /srv/whisper-transcriber
# The optional packages are a Node for machines that lack one and tools of the build.
RUN npm prune --omit=dev --omit=optional

FROM ${NODE_IMAGE} AS worker
ARG POSTGRES_MAJOR
# The PostgreSQL project's own package source and its key, as the official image has them.
COPY --from=postgres /usr/local/share/keyrings/postgres.gpg.asc /usr/local/share/keyrings/
COPY --from=postgres /etc/apt/sources.list.d/pgdg.list /etc/apt/sources.list.d/
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        age ca-certificates git openssh-client python3 python3-venv util-linux "postgresql-client-${POSTGRES_MAJOR}" \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o node -g node -m 0700 /var/lib/migration-runbook \
    && install -d /etc/migration-runbook/services
COPY scripts/python/requirements.txt /opt/runbook/requirements.txt
# A Python with Alembic and the usual drivers, for services whose env.py needs nothing else.
RUN python3 -m venv /opt/alembic \
    && sed -n 's/^\([a-z0-9-]*==[^ ]*\).*/\1/p' /opt/runbook/requirements.txt > /opt/runbook/constraints.txt \
    && /opt/alembic/bin/pip install --no-cache-dir --constraint /opt/runbook/constraints.txt \
        alembic 'psycopg[binary]' psycopg2-binary asyncpg
# The linter of migrations, a plain executable.
RUN python3 -m venv /opt/squawk \
    && /opt/squawk/bin/pip install --no-cache-dir --constraint /opt/runbook/constraints.txt squawk-cli \
    && ln -s /opt/squawk/bin/squawk /usr/local/bin/squawk
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
RUN ln -s /app/dist/cli.js /usr/local/bin/runbook
ENV NODE_ENV=production \
    PATH=/usr/lib/postgresql/${POSTGRES_MAJOR}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER node
VOLUME /var/lib/migration-runbook
# Longer than the worker's own time to stop its children and sessions (30 s); Docker's default of 10 s would cut it short.
# docker run --stop-timeout 40
CMD ["runbook", "worker", "--profiles", "/etc/migration-runbook/services", "--state", "/var/lib/migration-runbook"]

FROM worker AS example-worker
USER root
COPY examples/whisper-transcriber /opt/whisper-transcriber
RUN python3 -m venv /opt/service \
    && /opt/service/bin/pip install --no-cache-dir --constraint /opt/runbook/constraints.txt \
        --requirement /opt/whisper-transcriber/v1.0.0/requirements.txt
COPY --from=build --chown=node:node /srv/whisper-transcriber /srv/whisper-transcriber
COPY docker ./docker
COPY config/postgres ./config/postgres
RUN install -d -o node -g node /etc/migration-runbook/services
USER node

FROM ${PYTHON_IMAGE} AS example
WORKDIR /app
COPY scripts/python/requirements.txt /tmp/requirements.txt
COPY examples/whisper-transcriber/v1.0.0 ./
RUN sed -n 's/^\([a-z0-9-]*==[^ ]*\).*/\1/p' /tmp/requirements.txt > /tmp/constraints.txt \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt --requirement requirements.txt \
    && useradd --system --no-create-home whisper
USER whisper
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000"]

# `docker build .` without a target makes the worker.
FROM worker
