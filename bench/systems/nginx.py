"""nginx, a plain reverse proxy that does nothing else: the practical limit."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path

from bench.apis import PATHS
from bench.processes import environment, free_port, running
from bench.systems.model import Options, Provider, Route, Running

CONFIGURATION = """
daemon off;
user {user};
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    client_max_body_size 64m;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 600s;
    proxy_ssl_trusted_certificate {authority};
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_ssl_server_name on;
    upstream plain {{ server 127.0.0.1:{plain}; keepalive 256; keepalive_requests 100000000; }}
    upstream encrypted {{ server 127.0.0.1:{encrypted}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://plain; }}
        location /tls/ {{ proxy_pass https://encrypted/; }}
    }}
}}
"""


def program() -> str | None:
    """The path of nginx; a package manager may have put it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """One location for the provider as it is, one for TLS."""
    port = free_port()
    configuration = CONFIGURATION.format(
        folder=folder,
        user=getuser(),
        workers=options.workers,
        authority=provider.certificates.authority,
        plain=provider.port,
        encrypted=provider.tls_port,
        port=port,
    )
    (folder / "nginx.conf").write_text(configuration)
    command = (program() or "nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log")
    with running(command, folder, environment(), f"http://127.0.0.1:{port}/") as pid:
        yield Running("nginx", pid, port, lambda api, tls: Route(f"/tls{PATHS[api]}" if tls else PATHS[api]))
