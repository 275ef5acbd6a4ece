# One image for `runner api`, `runner worker` and `runner migrate`.
FROM python:3.11-slim-bookworm AS packages
COPY requirements.lock .
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r requirements.lock

FROM node:22-bookworm-slim AS console
WORKDIR /console
COPY console/package.json console/package-lock.json console/.npmrc ./
RUN npm ci
COPY console ./
RUN npm run build

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends libseccomp2 \
 && rm -rf /var/lib/apt/lists/* \
 && pip uninstall -y --root-user-action=ignore setuptools wheel pip \
 && useradd --system --uid 10000 --no-create-home --shell /usr/sbin/nologin runner
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY --from=console /console/dist console/dist
COPY deploy/entrypoint deploy/
COPY profiles profiles
COPY sandbox_images sandbox_images
COPY sdk/python/src/agent_runner agent_runner
COPY runner runner
RUN /opt/venv/bin/python -m compileall -q agent_runner runner
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 RUNNER_HOST=0.0.0.0
USER 10000:10000
EXPOSE 8080
ENTRYPOINT ["/app/deploy/entrypoint", "python", "-m", "runner"]
CMD ["api"]
