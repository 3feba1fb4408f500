"""`gunicorn wsgi:app`: what systemd and PaaS run."""

from aibridge.serving.wsgi import app

__all__ = ["app"]
