# One image per service: docker build -f infra/docker/service.Dockerfile --build-arg SERVICE=ingest .
# Its packages are pinned with their digests by infra/docker/locks/<service>.txt, made by `make image-locks`.
# Those that compute have TORCH as well: `cuda`, which the public index has, or `cpu`, which comes from an index given as
# PIP_EXTRA_INDEX_URL or lies in infra/docker/wheels. What lies there is taken where its digest is the lock's.
ARG PYTHON=python:3.11-slim
FROM ${PYTHON} AS build
ARG SERVICE
ARG TORCH=
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
RUN python -m venv /build && python -m venv /venv
COPY infra/docker/locks locks
RUN /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r locks/build.txt
RUN --mount=type=bind,source=infra/docker/wheels,target=/wheels \
  /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --require-hashes --find-links /wheels \
  --wheel-dir /ready -r locks/${SERVICE}.txt ${TORCH:+-r locks/torch_${TORCH}.txt}
COPY schemas schemas
COPY libs libs
COPY services/${SERVICE} services/${SERVICE}
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /ready \
  ./schemas ./libs/chassis ./libs/stores ./libs/eventbus ./libs/work ./services/${SERVICE}
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-index /ready/*.whl
RUN test -z "$(find /venv/lib -name '*.pth' ! -name distutils-precedence.pth)"
RUN test -z "${TORCH}" || /venv/bin/python -c "import torch; torch.ones(1) + 1"
COPY infra/docker/sbom.py sbom.py
RUN /venv/bin/python sbom.py --image ${SERVICE} --project services/${SERVICE} --lock locks/${SERVICE}.txt \
  ${TORCH:+--lock locks/torch_${TORCH}.txt} > /sbom.json

FROM ${PYTHON}
ARG SERVICE
ENV SERVICE=${SERVICE} PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 SARTOR_SERVICE_HOST=0.0.0.0 SARTOR_SERVICE_PORT=8000
RUN useradd --system --uid 10001 --home-dir /var/lib/sartor sartor && install -d -o sartor /var/lib/sartor
COPY --from=build /venv /venv
COPY --from=build /sbom.json /app/sbom.json
USER 10001
WORKDIR /var/lib/sartor
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["sh", "-c", "exec python -m ${SERVICE}"]
