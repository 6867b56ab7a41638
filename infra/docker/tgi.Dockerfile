# Text Generation Inference with Sartor's serving agent in front: the agent starts the launcher, keeps its adapters in
# step with the registry, and restarts it when they change. Needs a GPU.
ARG TGI=ghcr.io/huggingface/text-generation-inference:3.3.7
FROM ${TGI}
RUN python3 -m venv --without-pip /agent && apt-get update && apt-get install -y --no-install-recommends python3-pip \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY infra/docker/locks locks
RUN --mount=type=bind,source=infra/docker/wheels,target=/wheels \
  python3 -m pip --python /agent/bin/python install --no-cache-dir --no-deps --no-build-isolation --require-hashes \
  --find-links /wheels -r locks/build.txt -r locks/serving_agent.txt
COPY schemas schemas
COPY libs libs
COPY services/serving_agent services/serving_agent
COPY infra/docker/sbom.py sbom.py
RUN python3 -m pip --python /agent/bin/python install --no-cache-dir --no-deps --no-build-isolation --no-index \
  $(/agent/bin/python sbom.py --folders services/serving_agent)
RUN install -d /app && /agent/bin/python sbom.py --image serving_agent --project services/serving_agent \
  --lock locks/serving_agent.txt --lock locks/build.txt > /app/sbom.json
RUN useradd --system --uid 10001 --home-dir /var/lib/sartor sartor && install -d -o sartor /var/lib/sartor /adapters
# TGI's Python lies below /root, which is shut to others; what starts at every Python start is nobody's business here.
RUN chmod 711 /root && { chmod 711 /root/.local /root/.local/share || true; } \
  && ! find /agent -name '*.pth' -not -name 'distutils-precedence.pth' | grep .
USER 10001
RUN /agent/bin/python -V && text-generation-launcher --version
WORKDIR /var/lib/sartor
ENV SARTOR_SERVICE_HOST=0.0.0.0 SARTOR_SERVICE_PORT=8000
EXPOSE 8000 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s \
  CMD ["/agent/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["/agent/bin/python", "-m", "serving_agent"]
