# Gives each service its database user and object store key, and ends. Runs as often as one likes.
ARG PYTHON=python:3.11-slim
FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /build && python -m venv /venv
COPY infra/docker/locks locks
RUN /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r locks/build.txt
RUN --mount=type=bind,source=infra/docker/wheels,target=/wheels \
  /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --require-hashes --find-links /wheels \
  --wheel-dir /ready -r locks/provision.txt
COPY infra/provision infra/provision
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /ready ./infra/provision
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-index /ready/*.whl
RUN test -z "$(find /venv/lib -name '*.pth' ! -name distutils-precedence.pth)"
COPY infra/docker/sbom.py sbom.py
RUN /venv/bin/python sbom.py --image provision --project infra/provision --lock locks/provision.txt > /sbom.json

FROM ${PYTHON}
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /venv /venv
COPY --from=build /sbom.json /app/sbom.json
USER 10001
CMD ["python", "-m", "provision"]
