"""What docs/security.md shows is run as it stands, but for the names of server, host and last command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import servers
from certificates import Authority

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_ten_lines_make_a_server_that_lets_in_whom_they_name(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (port,) = servers.free_ports(1)
    authority = Authority(tmp_path, "ca")
    authority.sign("server", "DNS:localhost")
    for written, here in (
        ("valkey-server", str(servers.path_redis_binary())),
        ("db.example:6379", f"localhost:{port}"),
        ("--tls-port 6379", f"--tls-port {port}"),
        ("maxmemory-policy noeviction &", "maxmemory-policy noeviction --daemonize yes --pidfile server.pid >&2"),
        (re.search(r"^stream-hash worker .*", block, re.MULTILINE)[0], ANSWER),  # type: ignore[index]  # it is there
    ):
        assert written in block
        block = block.replace(written, here)
    kept = {name: value for name, value in os.environ.items() if "REDIS" not in name and "STREAM_HASH" not in name}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "in, out"
    for secret in tmp_path.glob("*.secret"):
        assert secret.stat().st_mode & 0o77 == 0
        assert secret.read_text().strip() not in done.stdout + done.stderr + (tmp_path / "users.acl").read_text()


ANSWER = """
trap 'kill $(cat server.pid)' EXIT
until [ -s server.pid ]; do sleep 0.05; done
python - <<'END'
from stream_hash.environment import read_environment
from stream_hash.errors import ServerUnreachableError
from stream_hash.storage.connection import connect

url = read_environment().url
assert connect(url).execute_command("SMEMBERS", "sh:indexes") == set()
try:
    connect(url.replace("worker:", "owner:"))
except ServerUnreachableError:
    print("in, out")
END
"""
