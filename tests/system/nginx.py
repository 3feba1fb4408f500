"""A real nginx with the configuration that we ship, in front of gateways of a test."""

import getpass
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.system.client import Exchange, HeaderList, eventually
from tests.system.gateway import MESSAGES, ROOT, free_port

MAIN = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/aibridge.conf;
}}
"""


class Nginx:
    """Ports and paths are the test's, everything else is deploy/nginx.conf as it is."""

    def __init__(self, program: str, folder: Path, gateway_ports: Sequence[int]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        shipped = (ROOT / "deploy/nginx.conf").read_text("utf-8")
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=0;" for port in gateway_ports)
        site = _replaced(shipped, "    server 127.0.0.1:8080 max_fails=0;", servers)
        site = _replaced(site, "    listen 80;", f"    listen 127.0.0.1:{self.port};")
        (folder / "aibridge.conf").write_text(site)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=getpass.getuser()))
        command = (program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))
        with (folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    def __enter__(self) -> Self:
        eventually(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def log_text(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self._folder.glob("*.log"))

    def post(self, body: bytes, headers: HeaderList = (), target: str = MESSAGES) -> Exchange:
        return Exchange.open(self.url, "POST", target, [("Content-Type", "application/json"), *headers], body)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False


def _replaced(text: str, line: str, by: str) -> str:
    assert f"{line}\n" in text, f"deploy/nginx.conf has no line {line!r} any more"
    return text.replace(f"{line}\n", f"{by}\n", 1)
