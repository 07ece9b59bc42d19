"""HAProxy's settings: what Ray writes, and what serve/replica/haproxy.sh makes of it before HAProxy reads it."""

import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import ray

from core.patching import SWITCH
from serve.replica.haproxy import BLOCK, WRAPPER, environment, free_block, free_ports, own_ports

WRITTEN = """defaults
    option redispatch 1
    errorfile 503 /there/500.http
    errorfile 504 /there/500.http
frontend prometheus
    bind :9002
frontend http_frontend
    bind 127.0.0.1:8000
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \'%[path]\' not found."
listen stats
  bind *:9001
"""
AWAY = (
    'status 503 content-type application/json string \'{"error": {"message": "no replica can answer at the moment; try '
    'again", "type": "unavailable_error", "param": null, "code": 503}}\''
)


def started(config: Path) -> subprocess.CompletedProcess[str]:
    ports = {"RAY_SERVE_HAPROXY_STATS_PORT": "9001", "RAY_SERVE_HAPROXY_METRICS_PORT": "9002"}
    command = ["sh", str(WRAPPER), "-db", "-f", str(config), "-sf", "1"]
    env = {**os.environ, **ports, "RATCHET_HAPROXY": "echo"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_request_is_read_whole_and_statistics_stay_on_this_machine(tmp_path: Path) -> None:
    """The file that is named on the command line: Ray puts it into a folder of the node's."""
    config = tmp_path / "node" / "haproxy.cfg"
    config.parent.mkdir()
    config.write_text(WRITTEN)
    for _ in range(2):  # started again on the same file
        assert started(config).stdout.split() == ["-db", "-f", str(config), "-sf", "1"]
    assert config.read_text().splitlines() == [
        "defaults",
        "    option redispatch 1",
        "    option http-buffer-request",
        f"    http-error {AWAY}",
        "    errorfile 504 /there/500.http",
        "frontend prometheus",
        "    bind 127.0.0.1:9002",
        "frontend http_frontend",
        "    http-request set-header x-ratchet-id %[uuid]",
        "    http-request disable-l7-retry if { path_beg /admin/ }",
        "    http-request set-header x-request-disconnect-disabled ?1 if { path_beg /v1/ }",
        f"    http-response return {AWAY} if {{ status 404 }} {{ res.hdr(content-type) -m beg text/plain }}",
        "    http-after-response set-header Retry-After 1 if { status 503 }",
        "    bind 127.0.0.1:8000",
        "backend default_backend",
        f"    http-request return {AWAY}",
        "listen stats",
        "  bind 127.0.0.1:9001",
    ]


def test_settings_that_ray_writes_otherwise_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(WRITTEN.replace("option redispatch 1", "option redispatch"))
    found = started(config)
    assert found.returncode != 0 and "no place for 'http-buffer-request'" in found.stderr


def test_ports_of_a_run_are_its_own(tmp_path: Path) -> None:
    ours = environment(tmp_path) | own_ports()
    first = int(ours["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
    assert int(ours["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"]) == first + BLOCK - 1
    with socket.create_server(("127.0.0.1", first + 7)):  # a replica of ours
        assert first not in {free_block() for _ in range(1000)}
    proxy = int(ours["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"])
    with socket.create_server(("127.0.0.1", proxy)):
        assert own_ports()["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] != str(proxy)
    assert not own_ports().keys() & environment(tmp_path).keys()


def test_rays_template_has_the_lines_that_are_mended_and_not_yet_what_they_become() -> None:
    template = (Path(ray.__file__).parent / "serve/_private/haproxy_templates.py").read_text()
    places = ["bind *:{{ config.stats_port }}", "bind :{{ config.metrics_port }}", "\n    option redispatch 1\n"]
    places += ["errorfile 503 {{", "http-request return status 404 content-type", "\nfrontend http_frontend\n"]
    assert not [place for place in places if place not in template]
    unknown = ["disable-l7-retry", "Retry-After", "bind 127.0.0.1:{{ config.stats_port }}"]
    assert not [line for line in unknown if line in template], "Ray has it now: take it out of haproxy.sh"


def test_switched_off_rays_own_settings_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(tmp_path)["RAY_SERVE_HAPROXY_BINARY_PATH"] == str(WRAPPER)
    monkeypatch.setenv(SWITCH, "haproxy")
    plain = environment(tmp_path)
    assert plain["RAY_SERVE_HAPROXY_BINARY_PATH"] == plain["RATCHET_HAPROXY"] != str(WRAPPER)


def test_a_404_of_serves_own_proxy_becomes_a_503_and_one_of_a_replica_stays(tmp_path: Path) -> None:
    """By HAProxy itself, in front of a server that answers as Serve's proxy does while the service stops."""
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port, stats, metrics = free_ports(3)
        config = tmp_path / "haproxy.cfg"
        timeouts = "    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        config.write_text(
            WRITTEN.replace("defaults\n", f"defaults\n{timeouts}")
            .replace("    errorfile 504 /there/500.http\n", "")
            .replace(
                "127.0.0.1:8000",
                f"127.0.0.1:{port}\n    use_backend policy if {{ path_beg /v1 }}\n    default_backend default_backend",
            )
            .replace("9001", str(stats))
            .replace("9002", str(metrics))
            + f"backend policy\n    server one 127.0.0.1:{server.server_port}\n"
        )
        ports = {"RAY_SERVE_HAPROXY_STATS_PORT": str(stats), "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics)}
        env = {**os.environ, **ports, "RATCHET_HAPROXY": environment(tmp_path)["RATCHET_HAPROXY"]}
        with subprocess.Popen(["sh", str(WRAPPER), "-db", "-f", str(config)], env=env) as gateway:
            try:
                until_listening(port)
                for path, status in (("/v1/away", 503), ("/v1/unknown", 404), ("/elsewhere", 503)):
                    reply = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
                    assert reply.status_code == reply.json()["error"]["code"] == status, path
                    assert reply.headers.get("retry-after") == ("1" if status == 503 else None)
            finally:
                gateway.terminate()
        server.shutdown()


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        away = self.path == "/v1/away"
        body = b"Path '/v1/away' not found." if away else b'{"error": {"code": 404}}'
        self.send_response(404)
        self.send_header("content-type", "text/plain" if away else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def until_listening(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.05)
    raise AssertionError(f"nothing listens on {port}")
