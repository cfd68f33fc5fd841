"""TLS in front of an engine that speaks none: nginx, with certificates of an authority that lives as long."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trustme

from bench.gateway import HOST, free_ports
from bench.relays import Absent

SETTINGS = """\
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
"""
"""What any nginx here has in its `http`: all that it writes goes to a folder of its own, and nothing is bounded."""
_CONFIG = (
    """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 16000; }}
http {{
"""
    + SETTINGS
    + """\
    ssl_certificate {folder}/chain.pem;
    ssl_certificate_key {folder}/key.pem;
    {servers}
}}
"""
)
_SERVER = """\
    upstream e{port} {{ server {host}:{engine}; keepalive 6000; keepalive_requests 1000000000; }}
    server {{
        listen {host}:{port} ssl backlog=4096;
        location / {{
            proxy_pass http://e{port};
            proxy_http_version 1.1;
            proxy_set_header connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
"""


class Behind(msgspec.Struct, frozen=True):
    """Engines behind TLS: their ports, and the file of the authority that has signed for `localhost`."""

    ports: tuple[int, ...]
    ca: Path


@contextmanager
def terminated(engines: tuple[int, ...], folder: Path, prefix: Sequence[str]) -> Iterator[Behind]:
    """A port with TLS for each engine's. `Absent` without nginx."""
    nginx = shutil.which("nginx")
    if nginx is None:
        raise Absent("nothing that ends TLS is on this machine: nginx would")
    ports = tuple(free_ports(len(engines)))
    ca = _certified(folder)
    servers = "".join(_SERVER.format(host=HOST, port=p, engine=e) for p, e in zip(ports, engines, strict=True))
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, servers=servers))
    child = subprocess.Popen([*prefix, nginx, "-e", "stderr", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield Behind(ports, ca)
    finally:
        child.terminate()
        child.wait()


def _certified(folder: Path) -> Path:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    for pem in made.cert_chain_pems:
        pem.write_to_path(str(folder / "chain.pem"), append=True)
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    return ca
