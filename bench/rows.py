"""
The rows of the benchmark: each one function that measures one running proxy once.

To add a row, write such a function and enter it in `ROWS` with its figures. Most rows measure all
proxies side by side, started and warmed up; a solo row gets a fresh proxy that runs alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import attrs

from bench.app import TRANSFER_BYTES
from bench.certificate import CLIENT_NAME
from bench.comparison import SLICES, compare
from bench.h2load import H2loadReport, Load
from bench.httpsclient import ROUND_CONNECTIONS
from bench.lab import Lab, RunningProxy
from bench.loads import download_load, small_load, unary_load, upload_load, varied_loads
from bench.logged import check_log
from bench.paced import MAX_LATE_SHARE
from bench.placement import ClientCertificates, Mode, Setup
from bench.procfs import CpuTime
from bench.scaling import cost_by_open_connections, many_connections, share_among_workers
from bench.wrk import VARIED_SCRIPT

BYTES_PER_MB = 1_000_000
MIN_RESUMED_SHARE = 0.9
MAX_RESUMED_SHARE_OF_FULL = 0.01
MEMORY_SETTLE_SECONDS = 0.5
NO_HTTP = "moves bytes and does not look at HTTP, so it cannot tell the app who the client is"
NO_HTTP2 = "moves bytes and does not look at HTTP, so it cannot speak HTTP/2 to clients and HTTP/1.1 to the app"
NO_GRPC = "moves bytes and does not look at HTTP; what a call costs it is what any bytes cost it (tcp rows)"
NO_LOG = "moves bytes and does not look at HTTP, so it has nothing to log of a request"
NO_ROOM = "needs two open files for each connection, which are more than a process may have by default"
NO_WORKERS = "has a thread for each connection, and no number of workers to set"
NO_STREAM = "relays TCP with a module that is not in the package nginx-light"


@attrs.frozen
class Figure:
    """
    One number per proxy and turn: its key in the JSON, its title and unit in the table.

    One that already compares two numbers of a proxy is not set in proportion to other proxies. What we hold
    sidecar to is in `limits.toml`.
    """

    key: str
    title: str
    unit: str
    digits: int = 1
    is_more_better: bool = False
    is_comparison: bool = False


@attrs.frozen
class Outcome:
    """What one measurement gave: values by figure key, and doubts about them."""

    values: dict[str, float]
    warnings: list[str] = attrs.Factory(list)


@attrs.frozen(kw_only=True)
class Row:
    """
    A measurement and the figures it yields; *measure* raises MeasurementError.

    Its proxies are started in *mode*. A solo row gets a fresh proxy that runs alone. A row that is
    not about time is not spoilt when others use the cores meanwhile. *left_out* has the proxies
    that cannot do what is measured, by name, and why; they have no lines in the table. *programs*
    are those that it cannot be measured without; wrk, which warms up, is not among them.
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Lab, RunningProxy], Outcome]
    mode: Mode = Mode.HTTP
    is_solo: bool = False
    is_about_time: bool = True
    left_out: Mapping[str, str] = attrs.Factory(dict)
    programs: tuple[str, ...] = ()


def measure_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure keep-alive requests for 19 bytes over 32 connections, as fast as they go."""
    before = proxy.settled_cpu_time()
    report = lab.wrk(proxy, seconds=lab.effort.wrk_seconds)
    used = proxy.settled_cpu_time() - before
    cpu_us = microseconds_per(used, report.requests)
    return Outcome(
        {
            "request_cpu_us": cpu_us,
            "request_user_us": cpu_us * used.user_share,
            "request_system_us": cpu_us * (1 - used.user_share),
            "requests_per_second": report.requests_per_second,
            "latency_p50_us": report.p50_us,
            "latency_p99_us": report.p99_us,
        }
    )


def measure_varied_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the same with no two requests alike, so that nothing can be remembered from one to the next."""
    before = proxy.settled_cpu_time()
    report = lab.wrk(proxy, seconds=lab.effort.wrk_seconds, script=VARIED_SCRIPT)
    used = proxy.settled_cpu_time() - before
    return Outcome({"varied_request_cpu_us": microseconds_per(used, report.requests)})


def measure_mutual_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure keep-alive requests of a verified client whose name goes to the app, beside the same without all that."""
    rounds = lab.effort.requests // ROUND_CONNECTIONS
    both = compare(lab, proxy, Setup(clients=ClientCertificates.TOLD), mode="requests", count=rounds, workers=1)
    mutual_us, plain_us = both.other.cpu_us / ROUND_CONNECTIONS, both.plain.cpu_us / ROUND_CONNECTIONS
    return Outcome(
        {
            "request_mtls_cpu_us": mutual_us,
            "request_plain_cpu_us": plain_us,
            "request_mtls_extra_us": mutual_us - plain_us,
        }
    )


def measure_logged_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure keep-alive requests with a line of JSON for each in the access log, beside the same without a log."""
    return _logged(lab, proxy, "request_logged", ClientCertificates.NONE)


def measure_logged_mutual_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the same of a verified client whose name goes to the app and into the log, beside it without all that."""
    return _logged(lab, proxy, "request_logged_mtls", ClientCertificates.TOLD)


def _logged(lab: Lab, proxy: RunningProxy, unit: str, clients: ClientCertificates) -> Outcome:
    """Return CPU time per request with a log, without, and the difference; MeasurementError without all lines."""
    rounds = lab.effort.requests // ROUND_CONNECTIONS
    setup = Setup(is_logging=True, clients=clients)
    subject = CLIENT_NAME if clients is ClientCertificates.TOLD else ""
    both = compare(lab, proxy, setup, mode="requests", count=rounds, workers=1)
    if both.other.proxy.sink:
        # Of the warm-up, too: it is a slice more than those that count.
        requests = both.other.done * (SLICES + 1) // SLICES * ROUND_CONNECTIONS
        check_log(proxy.name, both.other.proxy.sink, requests=requests, subject=subject)
    logged_us, plain_us = both.other.cpu_us / ROUND_CONNECTIONS, both.plain.cpu_us / ROUND_CONNECTIONS
    return Outcome(
        {
            f"{unit}_cpu_us": logged_us,
            f"{unit}_plain_cpu_us": plain_us,
            f"{unit}_extra_us": logged_us - plain_us,
        }
    )


def measure_paced_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the latency of requests that are due at a fixed rate, from when they are due."""
    report = lab.paced(proxy)
    outcome = Outcome({"paced_p50_us": report.percentile_us(50), "paced_p99_us": report.percentile_us(99)})
    if report.late_share > MAX_LATE_SHARE:
        outcome.warnings.append(f"the benchmark sent {report.late_share:.0%} of the requests more than 1 ms late")
    return outcome


def measure_open_connections(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure keep-alive requests while few, more and many connections are open."""
    few_us, more_us, many_us = cost_by_open_connections(lab, proxy)
    return Outcome(
        {
            "open_few_cpu_us": few_us,
            "open_more_cpu_us": more_us,
            "open_many_cpu_us": many_us,
            "open_growth": max(more_us, many_us) / few_us,
        }
    )


def measure_workers(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure what two workers can serve, against one, if each has a core."""
    one, two = share_among_workers(lab, proxy)
    return Outcome(
        {
            "workers_one_cpu_us": one.cpu_us,
            "workers_two_cpu_us": two.cpu_us,
            "workers_gain": one.busiest_us / two.busiest_us,
        }
    )


def measure_full_connections(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure connections with a full handshake, each with one request."""
    cpu_us, resumed_share = _measure_connections(lab, proxy, "full")
    return Outcome({"full_connection_cpu_us": cpu_us}, _doubts_about_full(resumed_share))


def measure_mutual_connections(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the same with a client certificate that the proxy requires and verifies, beside the same without."""
    setup = Setup(clients=ClientCertificates.REQUIRED)
    both = compare(lab, proxy, setup, mode="full", count=lab.effort.connections)
    resumed_share = (both.plain.resumed + both.other.resumed) / (both.plain.done + both.other.done)
    return Outcome(
        {
            "mtls_connection_cpu_us": both.other.cpu_us,
            "server_only_connection_cpu_us": both.plain.cpu_us,
            "mtls_connection_ratio": both.other.cpu_us / both.plain.cpu_us,
        },
        _doubts_about_full(resumed_share),
    )


def _doubts_about_full(resumed_share: float) -> list[str]:
    """Return a warning if too many handshakes that were to be full were resumed."""
    if resumed_share <= MAX_RESUMED_SHARE_OF_FULL:
        return []
    return [f"{resumed_share:.0%} of the full handshakes were resumed"]


def measure_resumed_connections(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure connections that resume a session, each with one request."""
    cpu_us, resumed_share = _measure_connections(lab, proxy, "resumed")
    outcome = Outcome({"resumed_connection_cpu_us": cpu_us})
    if resumed_share < MIN_RESUMED_SHARE:
        outcome.warnings.append(f"only {resumed_share:.0%} of the handshakes were resumed")
    return outcome


def _measure_connections(lab: Lab, proxy: RunningProxy, mode: str) -> tuple[float, float]:
    """Return CPU microseconds per connection, and the share of resumed handshakes."""
    with lab.client(proxy, mode, lab.effort.connections) as client:
        before = proxy.settled_cpu_time()
        done = client.work()
        used = proxy.settled_cpu_time() - before
    return microseconds_per(used, done.done), done.resumed / done.done


def measure_download(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure downloads of 100 MB, one after another over one connection."""
    return Outcome({"download_cpu_ms": _measure_transfers(lab, proxy, "download")})


def measure_upload(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure uploads of 100 MB, one after another over one connection."""
    return Outcome({"upload_cpu_ms": _measure_transfers(lab, proxy, "upload")})


def _measure_transfers(lab: Lab, proxy: RunningProxy, mode: str) -> float:
    """Return CPU milliseconds per megabyte moved in one direction."""
    with lab.client(proxy, mode, lab.effort.transfers, workers=1) as client:
        before = proxy.settled_cpu_time()
        done = client.work()
        used = proxy.settled_cpu_time() - before
    return microseconds_per(used, done.moved_bytes / BYTES_PER_MB) / 1000


def measure_http2_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure requests for 19 bytes over HTTP/2: 10 connections with 10 streams each, as fast as they go."""
    lab.h2load(proxy, small_load(lab.effort.warm_up_requests))
    report, used = _h2load(lab, proxy, small_load(lab.effort.requests))
    return _http2_outcome("http2_request", "http2_requests", report, used)


def measure_varied_http2_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the same with a browser's fields and no two requests alike."""
    lab.h2load(proxy, *varied_loads(lab.effort.warm_up_requests))
    report, used = _h2load(lab, proxy, *varied_loads(lab.effort.requests))
    return Outcome({"http2_varied_request_cpu_us": microseconds_per(used, report.successes)})


def measure_http2_transfers(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure downloads of 100 MB over HTTP/2, one after another over one connection, then uploads."""
    path = lab.app.transfer_path
    loads = {
        "http2_download_cpu_ms": (download_load(1), download_load(lab.effort.transfers)),
        "http2_upload_cpu_ms": (upload_load(1, path), upload_load(lab.effort.transfers, path)),
    }
    values: dict[str, float] = {}
    for key, (warm_up, load) in loads.items():
        lab.h2load(proxy, warm_up)
        report, used = _h2load(lab, proxy, load)
        values[key] = microseconds_per(used, report.successes * TRANSFER_BYTES / BYTES_PER_MB) / 1000
    return Outcome(values)


def measure_unary_calls(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure unary gRPC calls: 10 connections with 10 streams each, as fast as they go; HTTP/2 to the app, too."""
    report, used = _h2load(lab, proxy, unary_load(lab.effort.requests, lab.call_path))
    return _http2_outcome("unary_call", "unary_calls", report, used)


def _h2load(lab: Lab, proxy: RunningProxy, *loads: Load) -> tuple[H2loadReport, CpuTime]:
    """Put *loads* on a proxy; return what h2load saw, and the CPU time they took."""
    before = proxy.settled_cpu_time()
    report = lab.h2load(proxy, *loads)
    return report, proxy.settled_cpu_time() - before


def _http2_outcome(unit: str, units: str, report: H2loadReport, used: CpuTime) -> Outcome:
    """Return CPU time per unit of work with its split, and units per second."""
    cpu_us = microseconds_per(used, report.successes)
    return Outcome(
        {
            f"{unit}_cpu_us": cpu_us,
            f"{unit}_user_us": cpu_us * used.user_share,
            f"{unit}_system_us": cpu_us * (1 - used.user_share),
            f"{units}_per_second": report.requests_per_second,
        }
    )


def measure_relayed_requests(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the load of `measure_requests` on a proxy that does not know it for requests."""
    return _relayed(measure_requests(lab, proxy))


def measure_relayed_download(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the load of `measure_download` on such a proxy."""
    return _relayed(measure_download(lab, proxy))


def measure_relayed_upload(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the load of `measure_upload` on such a proxy."""
    return _relayed(measure_upload(lab, proxy))


def _relayed(outcome: Outcome) -> Outcome:
    """Return an outcome under the keys of raw TCP mode."""
    return Outcome({f"tcp_{key}": value for key, value in outcome.values.items()}, outcome.warnings)


def measure_memory(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure memory after the first request, and again after requests and transfers."""
    time.sleep(MEMORY_SETTLE_SECONDS)
    values = {
        "memory_start_mb": proxy.pss_bytes() / BYTES_PER_MB,
        "memory_start_alone_mb": proxy.alone_bytes() / BYTES_PER_MB,
    }
    lab.wrk(proxy, seconds=lab.effort.wrk_seconds)
    for mode, count, workers in (("full", 200, 16), ("download", 1, 1), ("upload", 1, 1)):
        with lab.client(proxy, mode, count, workers=workers) as client:
            client.work()
    time.sleep(MEMORY_SETTLE_SECONDS)
    values["memory_loaded_mb"] = proxy.pss_bytes() / BYTES_PER_MB
    values["memory_loaded_alone_mb"] = proxy.alone_bytes() / BYTES_PER_MB
    return Outcome(values)


def measure_idle_memory(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure what an idle connection that has served one request keeps in memory."""
    return Outcome({"idle_connection_kb": _idle_connection_kb(lab, proxy, lab.effort.idle_connections)})


def measure_many_idle_memory(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the same with many more of them, on an instance that has room for so many."""
    with lab.running(proxy.installed, many_connections(lab, proxy)) as fresh:
        return Outcome({"idle_many_connection_kb": _idle_connection_kb(lab, fresh, lab.effort.many_connections)})


def _idle_connection_kb(lab: Lab, proxy: RunningProxy, connections: int) -> float:
    """Return by how much a proxy grows for each of so many connections."""
    lab.wrk(proxy, seconds=lab.effort.warm_up_seconds)
    with lab.client(proxy, "hold", connections) as client:
        time.sleep(MEMORY_SETTLE_SECONDS)
        before_bytes = proxy.pss_bytes()
        done = client.work()
        time.sleep(MEMORY_SETTLE_SECONDS)
        return (proxy.pss_bytes() - before_bytes) / done.done / 1000


def measure_slow_readers(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure memory while many clients at a time fetch 100 MB each, and read slowly."""
    readers = lab.effort.slow_readers
    with lab.client(proxy, "slow", readers, workers=readers) as client:
        client.work()
        time.sleep(MEMORY_SETTLE_SECONDS)
        return Outcome(
            {
                "slow_readers_mb": proxy.pss_bytes() / BYTES_PER_MB,
                "slow_readers_alone_mb": proxy.alone_bytes() / BYTES_PER_MB,
            }
        )


def measure_start(lab: Lab, proxy: RunningProxy) -> Outcome:
    """Measure the time from starting the program to its port, and to its first answer."""
    listening = [proxy.listening_seconds]
    answering = [proxy.answering_seconds]
    while len(listening) < lab.effort.starts:
        with lab.running(proxy.installed, proxy.setup) as fresh:
            listening.append(fresh.listening_seconds)
            answering.append(fresh.answering_seconds)
    return Outcome(
        {
            "start_listening_ms": statistics.median(listening) * 1000,
            "start_answering_ms": statistics.median(answering) * 1000,
        }
    )


def microseconds_per(used: CpuTime, units: float) -> float:
    """Return CPU microseconds per unit of work."""
    return used.run_ns / 1000 / units


ROWS = (
    Row(
        name="requests",
        measure=measure_requests,
        figures=(
            Figure("request_cpu_us", "CPU per request", "us"),
            Figure("request_user_us", "... in user space", "us"),
            Figure("request_system_us", "... in the kernel", "us"),
            Figure("requests_per_second", "requests", "1/s", 0, is_more_better=True),
            Figure("latency_p50_us", "latency p50", "us", 0),
            Figure("latency_p99_us", "latency p99", "us", 0),
        ),
    ),
    Row(
        name="requests-varied",
        measure=measure_varied_requests,
        figures=(Figure("varied_request_cpu_us", "CPU per request, no two alike", "us"),),
    ),
    Row(
        name="requests-mtls",
        measure=measure_mutual_requests,
        figures=(
            Figure("request_mtls_cpu_us", "CPU per request, client verified", "us"),
            Figure("request_plain_cpu_us", "... the same load, not verified", "us"),
            Figure("request_mtls_extra_us", "... difference", "us", is_comparison=True),
        ),
        left_out={"hitch": NO_HTTP, "stunnel": NO_HTTP},
    ),
    Row(
        name="requests-logged",
        measure=measure_logged_requests,
        figures=(
            Figure("request_logged_cpu_us", "CPU per request, logged", "us"),
            Figure("request_logged_plain_cpu_us", "... the same load, not logged", "us"),
            Figure("request_logged_extra_us", "... difference", "us", is_comparison=True),
        ),
        left_out={"hitch": NO_LOG, "stunnel": NO_LOG},
    ),
    Row(
        name="requests-logged-mtls",
        measure=measure_logged_mutual_requests,
        figures=(
            Figure("request_logged_mtls_cpu_us", "CPU per request, client verified, logged", "us"),
            Figure("request_logged_mtls_plain_cpu_us", "... the same load, neither", "us"),
            Figure("request_logged_mtls_extra_us", "... difference", "us", is_comparison=True),
        ),
        left_out={"hitch": NO_LOG, "stunnel": NO_LOG},
    ),
    Row(
        name="latency",
        measure=measure_paced_requests,
        figures=(
            Figure("paced_p50_us", "latency p50 at a fixed rate", "us", 0),
            Figure("paced_p99_us", "latency p99 at a fixed rate", "us", 0),
        ),
    ),
    Row(
        name="open-connections",
        measure=measure_open_connections,
        is_solo=True,
        figures=(
            Figure("open_few_cpu_us", "CPU per request, few connections open", "us"),
            Figure("open_more_cpu_us", "... more", "us"),
            Figure("open_many_cpu_us", "... many", "us"),
            Figure("open_growth", "CPU per request, most connections x fewest", "ratio", 2, is_comparison=True),
        ),
        left_out={"hitch": NO_ROOM, "stunnel": NO_ROOM},
    ),
    Row(
        name="workers",
        measure=measure_workers,
        is_solo=True,
        figures=(
            Figure("workers_one_cpu_us", "CPU per request, one worker", "us"),
            Figure("workers_two_cpu_us", "... two workers", "us"),
            Figure(
                "workers_gain",
                "requests that two workers serve x one",
                "ratio",
                2,
                is_more_better=True,
                is_comparison=True,
            ),
        ),
        left_out={"stunnel": NO_WORKERS},
    ),
    Row(
        name="connections-full",
        measure=measure_full_connections,
        figures=(Figure("full_connection_cpu_us", "CPU per new connection, full", "us", 0),),
    ),
    Row(
        name="connections-mtls",
        measure=measure_mutual_connections,
        figures=(
            Figure("mtls_connection_cpu_us", "CPU per new connection, mutual", "us", 0),
            Figure("server_only_connection_cpu_us", "... the same load, server-only", "us", 0),
            Figure("mtls_connection_ratio", "... x server-only", "ratio", 2, is_comparison=True),
        ),
    ),
    Row(
        name="connections-resumed",
        measure=measure_resumed_connections,
        figures=(Figure("resumed_connection_cpu_us", "CPU per new connection, resumed", "us", 0),),
    ),
    Row(
        name="download",
        measure=measure_download,
        figures=(Figure("download_cpu_ms", "CPU per MB down", "ms", 2),),
    ),
    Row(
        name="upload",
        measure=measure_upload,
        figures=(Figure("upload_cpu_ms", "CPU per MB up", "ms", 2),),
    ),
    Row(
        name="http2",
        measure=measure_http2_requests,
        figures=(
            Figure("http2_request_cpu_us", "CPU per request, HTTP/2", "us"),
            Figure("http2_request_user_us", "... in user space", "us"),
            Figure("http2_request_system_us", "... in the kernel", "us"),
            Figure("http2_requests_per_second", "requests, HTTP/2", "1/s", 0, is_more_better=True),
        ),
        left_out={"hitch": NO_HTTP2, "stunnel": NO_HTTP2},
        programs=("h2load",),
    ),
    Row(
        name="http2-varied",
        measure=measure_varied_http2_requests,
        figures=(Figure("http2_varied_request_cpu_us", "CPU per request, HTTP/2, no two alike", "us"),),
        left_out={"hitch": NO_HTTP2, "stunnel": NO_HTTP2},
        programs=("h2load",),
    ),
    Row(
        name="http2-bulk",
        measure=measure_http2_transfers,
        figures=(
            Figure("http2_download_cpu_ms", "CPU per MB down, HTTP/2", "ms", 2),
            Figure("http2_upload_cpu_ms", "CPU per MB up, HTTP/2", "ms", 2),
        ),
        left_out={"hitch": NO_HTTP2, "stunnel": NO_HTTP2},
        programs=("h2load",),
    ),
    Row(
        name="memory",
        measure=measure_memory,
        is_solo=True,
        is_about_time=False,
        figures=(
            Figure("memory_start_mb", "memory at start, PSS", "MB"),
            Figure("memory_loaded_mb", "memory after load, PSS", "MB"),
            Figure("memory_start_alone_mb", "memory at start, alone", "MB"),
            Figure("memory_loaded_alone_mb", "memory after load, alone", "MB"),
        ),
    ),
    Row(
        name="idle-memory",
        measure=measure_idle_memory,
        is_solo=True,
        is_about_time=False,
        figures=(Figure("idle_connection_kb", "memory per idle connection", "kB"),),
    ),
    Row(
        name="idle-memory-many",
        measure=measure_many_idle_memory,
        is_solo=True,
        is_about_time=False,
        figures=(Figure("idle_many_connection_kb", "memory per idle connection of many", "kB"),),
        left_out={"hitch": NO_ROOM, "stunnel": NO_ROOM},
    ),
    Row(
        name="slow-readers",
        measure=measure_slow_readers,
        is_solo=True,
        is_about_time=False,
        figures=(
            Figure("slow_readers_mb", "memory with slow readers, PSS", "MB"),
            Figure("slow_readers_alone_mb", "memory with slow readers, alone", "MB"),
        ),
    ),
    Row(
        name="start",
        measure=measure_start,
        is_solo=True,
        figures=(
            Figure("start_listening_ms", "start to listening", "ms", 0),
            Figure("start_answering_ms", "start to first answer", "ms", 0),
        ),
    ),
    Row(
        name="grpc-unary",
        measure=measure_unary_calls,
        mode=Mode.GRPC,
        figures=(
            Figure("unary_call_cpu_us", "CPU per gRPC call", "us"),
            Figure("unary_call_user_us", "... in user space", "us"),
            Figure("unary_call_system_us", "... in the kernel", "us"),
            Figure("unary_calls_per_second", "gRPC calls", "1/s", 0, is_more_better=True),
        ),
        left_out={"hitch": NO_GRPC, "stunnel": NO_GRPC},
        programs=("h2load", "nghttp"),
    ),
    Row(
        name="tcp-requests",
        measure=measure_relayed_requests,
        mode=Mode.TCP,
        figures=(
            Figure("tcp_request_cpu_us", "CPU per request, relayed", "us"),
            Figure("tcp_request_user_us", "... in user space", "us"),
            Figure("tcp_request_system_us", "... in the kernel", "us"),
            Figure("tcp_requests_per_second", "requests, relayed", "1/s", 0, is_more_better=True),
            Figure("tcp_latency_p50_us", "latency p50, relayed", "us", 0),
            Figure("tcp_latency_p99_us", "latency p99, relayed", "us", 0),
        ),
        left_out={"nginx": NO_STREAM},
    ),
    Row(
        name="tcp-download",
        measure=measure_relayed_download,
        mode=Mode.TCP,
        figures=(Figure("tcp_download_cpu_ms", "CPU per MB down, relayed", "ms", 2),),
        left_out={"nginx": NO_STREAM},
    ),
    Row(
        name="tcp-upload",
        measure=measure_relayed_upload,
        mode=Mode.TCP,
        figures=(Figure("tcp_upload_cpu_ms", "CPU per MB up, relayed", "ms", 2),),
        left_out={"nginx": NO_STREAM},
    ),
)
