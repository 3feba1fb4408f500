FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 10001 aibridge
WORKDIR /srv/aibridge
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && mkdir -p var && chown aibridge var

USER aibridge
# Inside a container loopback is nobody; auth.mode stays the operator's choice, and `open` refuses to start here.
ENV HOST=0.0.0.0 PORT=8080
EXPOSE 8080
VOLUME /srv/aibridge/var
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz')"]
# SIGTERM drains for server.drain_timeout: give `docker stop` more time than its 10 seconds (docs/deploy.md).
CMD ["gunicorn", "wsgi:app"]
