"""Read by `gunicorn wsgi:app`. The values come from the settings: aibridge/serving/gunicorn_conf.py."""

from aibridge.serving.gunicorn_conf import *  # noqa: F403
