FROM python:3.11-slim

RUN useradd --create-home --uid 10001 aibridge
WORKDIR /srv/aibridge
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY --chown=aibridge . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && mkdir -p var && chown aibridge var

USER aibridge
# Inside a container loopback is nobody; auth.mode stays the operator's choice, and `open` refuses to start here.
ENV HOST=0.0.0.0 PORT=8080
EXPOSE 8080
VOLUME /srv/aibridge/var
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz')"]
CMD ["gunicorn", "wsgi:app"]
