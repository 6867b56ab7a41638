# Gives each service its database user and object store key, and ends. Runs as often as one likes.
ARG PYTHON=python:3.11-slim
FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /venv
COPY infra/docker/locks/provision.txt lock.txt
RUN /venv/bin/pip install --no-cache-dir --no-deps -r lock.txt
COPY infra/provision infra/provision
RUN /venv/bin/pip install --no-cache-dir --no-deps ./infra/provision

FROM ${PYTHON}
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /venv /venv
USER 10001
CMD ["python", "-m", "provision"]
