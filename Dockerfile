# A server for a saved variant, on CPUs:
#   docker build -t umie .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/best:/model:ro" umie
# A saved variant has its weights; EXTRAS adds what its encoder needs: --build-arg EXTRAS=serve,timm
FROM python:3.11-slim

ARG EXTRAS=serve
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

# The builds for CPUs are a tenth of the size of those with CUDA, which PyPI has.
RUN pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY umie umie
COPY examples examples
RUN pip install ".[${EXTRAS}]"

RUN useradd --system --no-create-home umie
USER umie
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM

# a large variant takes minutes to load on a busy machine
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["umie", "serve", "--model", "/model", "--host", "0.0.0.0"]
