"""The application as WSGI servers import it."""

from aibridge.app import create_app

app = create_app()
