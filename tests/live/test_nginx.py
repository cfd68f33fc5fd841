"""nginx as the other gateway: it serves its clients as before, and mirrors to `tidegate mirror`."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.test_mirror import CHAT, running
from tests.http.harness import HOST, read_response
from tidegate.engines.fake import FakeEngine, Script

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]

# As docs/explanation/shadowing.md has it, in a file of its own.
CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream tidegate {{ server 127.0.0.1:{mirror}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            mirror /tidegate;
            proxy_pass http://127.0.0.1:{engine};
        }}
        location = /tidegate {{
            internal;
            proxy_pass http://tidegate;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Request-ID $request_id;
            proxy_set_header Authorization "";
            proxy_connect_timeout 100ms;
            proxy_send_timeout 500ms;
            proxy_read_timeout 500ms;
        }}
    }}
}}
"""


def test_clients_of_nginx_are_served_as_before_and_each_request_is_decided(tmp_path: Path) -> None:
    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(CHAT)}\r\n\r\n"
        writer.write(head.encode() + CHAT)
        answer = await read_response(reader)
        writer.close()
        assert answer.status == 200
        return answer.body

    async def run() -> None:
        async with FakeEngine(Script(tokens=3)) as engine, running(tmp_path, "--json") as mirror:
            with_port = await asyncio.start_server(lambda r, w: None, HOST, 0)
            port = with_port.sockets[0].getsockname()[1]
            with_port.close()
            await with_port.wait_closed()
            file = tmp_path / "nginx.conf"
            file.write_text(CONFIG.format(folder=tmp_path, mirror=mirror.port, engine=engine.port, port=port))
            assert NGINX is not None
            nginx = await asyncio.create_subprocess_exec(NGINX, "-c", str(file), "-p", str(tmp_path))
            try:
                await _listening(port)
                answers = await asyncio.gather(*(ask(port) for _ in range(8)))
                assert all(b"w1 w2 w3" in answer for answer in answers)
            finally:
                nginx.terminate()
                await nginx.wait()
            found = json.loads(await mirror.over())
            assert found["mirror"]["requests"] == 8
            assert found["passed_over"] == {}

    asyncio.run(run())


async def _listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return
