# One image per service: docker build -f infra/docker/service.Dockerfile --build-arg SERVICE=ingest .
# Its packages are pinned by infra/docker/locks/<service>.txt, made from requirements.lock by `make image-locks`.
ARG PYTHON=python:3.11-slim
FROM ${PYTHON} AS build
ARG SERVICE
WORKDIR /src
RUN python -m venv /venv
COPY infra/docker/locks/${SERVICE}.txt lock.txt
RUN /venv/bin/pip install --no-cache-dir --no-deps -r lock.txt
COPY schemas schemas
COPY libs libs
COPY services/${SERVICE} services/${SERVICE}
RUN /venv/bin/pip install --no-cache-dir --no-deps ./schemas ./libs/chassis ./libs/stores ./libs/eventbus ./services/${SERVICE}

FROM ${PYTHON}
ARG SERVICE
ENV SERVICE=${SERVICE} PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 SARTOR_SERVICE_HOST=0.0.0.0 SARTOR_SERVICE_PORT=8000
RUN useradd --system --uid 10001 --home-dir /work sartor && install -d -o sartor /work
COPY --from=build /venv /venv
USER 10001
WORKDIR /work
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["sh", "-c", "exec python -m ${SERVICE}"]
