"""
The app behind every proxy: a plain nginx that answers from memory, on the load generator's core.

Four resources: `/` answers 19 bytes, `/download` sends a file that lives in memory, `/upload`
reads a whole request body and answers with the number of bytes it read, `/client` answers with
what the proxy says of its client's certificate. On a port of its own it speaks HTTP/2 in the clear
and answers `/` and the gRPC call of `bench.unary`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from bench import unary
from bench.errors import CannotRunError
from bench.launch import LOOPBACK, free_port, log_tail, logged_process, wait_until_listening

GREETING = "hello from the app\n"
TRANSFER_BYTES = 100_000_000
SBIN_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"


@attrs.frozen(kw_only=True)
class App:
    """The running app: its ports on the loopback address, for HTTP/1.1 and for gRPC; the file it has to send."""

    port: int
    grpc_port: int
    transfer_path: Path


def find_executable(name: str) -> str | None:
    """Find a program on the PATH or in the folders for system programs; None when absent."""
    return shutil.which(name) or shutil.which(name, path=SBIN_FOLDERS)


def nginx_preamble(*, connections: int, workers: int = 1) -> str:
    """Return the main and events part of an nginx configuration; *connections* are those of each worker."""
    # Started by root, workers would become `nobody`, who cannot enter the run's private folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""{user}
daemon off;
worker_processes {workers};
error_log stderr error;
pid nginx.pid;
events {{ worker_connections {connections}; }}
"""


def nginx_storage(folder: Path) -> str:
    """Return the directives that keep everything nginx may write inside *folder*."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(f"  {kind}_temp_path {folder}/{kind};" for kind in kinds)


def app_config(folder: Path, *, port: int, sink_port: int, grpc_port: int) -> str:
    """
    Return the app's nginx configuration.

    `/upload` collects the body in memory (the folder is on /dev/shm where there is one) before
    it asks the inner server, which says how many bytes came. A bare `return 200` would answer
    before the body has arrived. A gRPC call's is read by `mirror`, which costs no connection; the answer is
    then that to a file which does not exist.
    """
    return f"""{nginx_preamble(connections=16384)}
http {{
{nginx_storage(folder)}
  access_log off;
  sendfile on;
  tcp_nopush on;
  default_type text/plain;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 1m;
  upstream sink {{ server {LOOPBACK}:{sink_port}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen {LOOPBACK}:{port} backlog=4096;
    location = / {{ return 200 "hello from the app\\n"; }}
    location = /download {{ alias {folder}/download; }}
    location = /client {{ return 200 "$http_x_forwarded_client_cert$http_x_ssl_client_s_dn\\n"; }}
    location = /upload {{
      proxy_pass http://sink;
      proxy_http_version 1.1;
      proxy_pass_request_body off;
      proxy_set_header Connection "";
      proxy_set_header Content-Length "";
      proxy_set_header X-Request-Length $request_length;
    }}
  }}
  server {{
    listen {LOOPBACK}:{sink_port};
    location / {{ return 200 "$http_x_request_length\\n"; }}
  }}
  server {{
    listen {LOOPBACK}:{grpc_port} http2 backlog=4096;
    location = / {{ return 200 "hello from the app\\n"; }}
    location = /read {{ internal; return 204; }}
    location = {unary.PATH} {{
      mirror /read;
      log_not_found off;
      error_page 404 =200 @answer;
    }}
    location @answer {{
      default_type application/grpc;
      add_trailer grpc-status 0;
      return 200 "{unary.ANSWER}";
    }}
  }}
}}
"""


@contextlib.contextmanager
def running_app(folder: Path, *, core: int, environment: Mapping[str, str]) -> Iterator[App]:
    """
    Keep the app running for the length of the block.

    Raises:
        CannotRunError: There is no nginx, or it does not start.
    """
    executable = find_executable("nginx")
    if executable is None:
        raise CannotRunError("nginx is not installed; the app behind the proxies is an nginx.")
    folder.mkdir()
    app = App(port=free_port(), grpc_port=free_port(), transfer_path=folder / "download")
    app.transfer_path.write_bytes(bytes(TRANSFER_BYTES))
    config_path = folder / "nginx.conf"
    config_path.write_text(app_config(folder, port=app.port, sink_port=free_port(), grpc_port=app.grpc_port))
    log_path = folder / "log"
    command = [executable, "-p", str(folder), "-e", "stderr", "-c", str(config_path)]
    with logged_process(command, cores=(core,), log_path=log_path, environment=environment, folder=folder) as process:
        wait_until_listening(process, name="the app (nginx)", port=app.port, log_path=log_path)
        if process.poll() is not None:
            raise CannotRunError(f"The app (nginx) ended at once:\n{log_tail(log_path)}")
        yield app
