"""`admin.pages`: a question and the program to an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.admin.pages import ADMIN, HEALTH, MOST_CONNECTIONS, Page, PartlyReloaded, Question, Surface, respond
from sidecar.observe.metrics import Dump, Metrics
from tests.admin.fakes import BAD, DOUBTFUL, GOOD, ISSUED, RELOAD_FAILURE, FakeOperator, connection

PAGES = [path for path, route in ADMIN.routes.items() if "GET" in route.methods]
CHANGES = [path for path, route in ADMIN.routes.items() if route.methods == ("POST",)]


@pytest.fixture
def operator() -> FakeOperator:
    return FakeOperator()


def get(operator: FakeOperator, path: str, surface: Surface = ADMIN, **query: str) -> Page:
    return respond(Question("GET", path, query), operator, surface)


def post(operator: FakeOperator, path: str, **query: str) -> Page:
    return respond(Question("POST", path, query), operator, ADMIN)


def read(page: Page) -> Any:
    assert page.content_type == "application/json"
    return json.loads(page.body)


class TestRespond:
    @pytest.mark.parametrize("path", ["/nope", "", "*", "/ready/", "//ready", "/READY", "/" + "x" * 5000], ids=repr)
    def test_unknown_path_is_404(self, operator: FakeOperator, path: str) -> None:
        """A wrong path is answered with the right ones, and not with all of itself."""
        page = get(operator, path)
        assert page.status == 404
        assert b"/stats/prometheus" in page.body
        assert len(page.body) < 600
        assert page.content_type.startswith("text/plain")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "X" * 5000], ids=lambda m: m[:8])
    @pytest.mark.parametrize("path", PAGES)
    def test_pages_are_read_only(self, operator: FakeOperator, path: str, method: str) -> None:
        """Nothing happens but that the right methods are named."""
        page = respond(Question(method, path), operator, ADMIN)
        assert (page.status, page.allow) == (405, "GET, HEAD")
        assert b"GET, HEAD" in page.body
        assert len(page.body) < 200
        assert operator.asked == []

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "post"])
    @pytest.mark.parametrize("path", CHANGES)
    def test_changes_take_a_post(self, operator: FakeOperator, path: str, method: str) -> None:
        """A link, a prefetch or a crawler changes nothing."""
        page = respond(Question(method, path, {"level": "debug"}), operator, ADMIN)
        assert (page.status, page.allow) == (405, "POST")
        assert operator.asked == []

    @pytest.mark.parametrize("path", PAGES)
    def test_head_is_answered_like_get(self, operator: FakeOperator, path: str) -> None:
        """The server leaves out the body."""
        assert respond(Question("HEAD", path), operator, ADMIN) == get(operator, path)

    @pytest.mark.parametrize(
        ("path", "asked"),
        [
            ("/", []),
            ("/live", []),
            ("/ready", ["readiness"]),
            ("/stats", ["figures"]),
            ("/stats/prometheus", ["figures"]),
            ("/certs", ["certificates"]),
            ("/certs/server.pem", ["certificates"]),
            ("/config", ["config_lines"]),
            ("/connections", ["connections"]),
            ("/clusters", ["clusters"]),
            ("/handshakes", ["rejections"]),
        ],
    )
    def test_page_asks_for_what_it_shows_only(self, operator: FakeOperator, path: str, asked: list[str]) -> None:
        """A probe that comes every second does not make the program describe its certificates."""
        assert get(operator, path).status == 200
        assert operator.asked == asked

    def test_root_lists_all_with_their_methods(self, operator: FakeOperator) -> None:
        """Whoever finds the port finds the pages."""
        lines = get(operator, "/").body.decode().splitlines()
        assert [line.split()[:2] for line in lines] == [
            [route.methods[0], path] for path, route in ADMIN.routes.items()
        ]


class TestHealthSurface:
    @pytest.mark.parametrize("path", [path for path in ADMIN.routes if path not in ("/live", "/ready")])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_nothing_else_is_there(self, operator: FakeOperator, path: str, method: str) -> None:
        """Whoever can reach a health port learns nothing more and changes nothing."""
        page = respond(Question(method, path), operator, HEALTH)
        assert page.status == 404
        assert page.body == f"There is no {path!r} here. Known: /live, /ready\n".encode()
        assert operator.asked == []

    def test_reasons_are_names_only(self) -> None:
        """What failed may be known to all, how it failed names hosts and files."""
        page = get(FakeOperator((GOOD, DOUBTFUL, BAD)), "/ready", HEALTH, verbose="")
        assert page.status == 503
        assert read(page) == {"ready": False, "reasons": ["app"]}

    def test_ready_and_live_are_200(self, operator: FakeOperator) -> None:
        """A kubelet looks at the status."""
        assert read(get(operator, "/ready", HEALTH)) == {"ready": True, "reasons": []}
        assert get(operator, "/live", HEALTH).body == b"live\n"


class TestReady:
    def test_live_is_200_whatever_else_is(self) -> None:
        """A process that answers is alive, also when it is not ready."""
        page = get(FakeOperator((BAD,)), "/live")
        assert (page.status, page.body) == (200, b"live\n")

    def test_ready_is_200(self, operator: FakeOperator) -> None:
        """With nothing against it, traffic is welcome."""
        page = get(operator, "/ready")
        assert (page.status, read(page)) == (200, {"ready": True, "reasons": []})

    def test_not_ready_is_503_with_all_reasons(self) -> None:
        """A load balancer looks at the status, a person at the reasons."""
        page = get(FakeOperator((GOOD, BAD, BAD)), "/ready")
        assert (page.status, read(page)) == (503, {"ready": False, "reasons": [BAD.text, BAD.text]})

    def test_verbose_lists_every_check(self) -> None:
        """Also what is well, and what is doubtful apart."""
        page = get(FakeOperator((GOOD, DOUBTFUL, BAD)), "/ready", verbose="")
        assert page.status == 503
        assert read(page) == {
            "ready": False,
            "reasons": [BAD.text],
            "warnings": [DOUBTFUL.text],
            "checks": [
                {"name": "draining", "state": "ok", "text": "not draining"},
                {"name": "reload", "state": "warn", "text": DOUBTFUL.text},
                {"name": "app", "state": "fail", "text": BAD.text},
            ],
        }


class TestStats:
    def test_each_sample_is_a_line(self) -> None:
        """Name, labels and value; of durations, how many and how long together."""
        metrics = Metrics(requests=12_345_678, responses={200: 1, 502: 1}, reasons={'odd"reason': 1})
        metrics.request_duration.add(0.25)
        metrics.request_duration.add(1.0)
        lines = get(FakeOperator(metrics=metrics), "/stats").body.decode().splitlines()
        assert {
            "sidecar_requests_total: 12345678",
            'sidecar_responses_total{status="200"}: 1',
            'sidecar_own_answers_total{reason="odd\\"reason"}: 1',
            "sidecar_request_duration_seconds_count: 2",
            "sidecar_request_duration_seconds_sum: 1.250000",
        } <= set(lines)

    def test_label_cannot_make_a_line(self) -> None:
        """What a client chose as its name stays within its quotes."""
        metrics = Metrics()
        metrics.client_request("x\nsidecar_ready: 1", 1.0, 1.0)
        assert b"\nsidecar_ready: 1" not in get(FakeOperator(metrics=metrics), "/stats").body

    def test_moments_are_whole(self) -> None:
        """A date in seconds is not rounded to a power of ten."""
        metrics = Metrics(started_at=1795420800.5)
        assert b"sidecar_start_timestamp_seconds: 1795420800.5\n" in get(FakeOperator(metrics=metrics), "/stats").body

    def test_metrics_are_in_the_exposition_format(self, operator: FakeOperator) -> None:
        """The content type carries the version that the scraper needs."""
        page = get(operator, "/stats/prometheus")
        assert page.content_type.startswith("text/plain; version=")
        assert b"sidecar_requests_total 0.0\n" in page.body

    def test_metrics_that_cannot_be_made_are_503(self, operator: FakeOperator, monkeypatch: pytest.MonkeyPatch) -> None:
        """Out of descriptors, the library behind the page cannot be loaded; it is tried again at the next scrape."""

        def fail(dump: Dump) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("sidecar.admin.prometheus.exposition", fail)
        page = get(operator, "/stats/prometheus")
        assert (page.status, page.body) == (503, b"The metrics cannot be made now: Too many open files.\n")


class TestCerts:
    def test_served_certificate_has_source_end_and_chain(self, operator: FakeOperator) -> None:
        """The page says what is served, from where and until when, and never a key."""
        page = get(operator, "/certs")
        (served,) = read(page)["certificates"]
        assert served["source"] == "/etc/tls/tls.crt"
        assert served["sans"] == ["DNS:localhost", "IP:127.0.0.1"]
        assert served["days_left"] == 90
        assert [link["subject"] for link in served["chain"]] == [ISSUED.chain[0].subject.rfc4514_string()]
        assert served["chain"][0]["days_left"] > 0
        assert b"PRIVATE" not in page.body

    def test_what_clients_are_verified_with_is_shown(self, operator: FakeOperator) -> None:
        """CAs and revocation lists have their sources and days too; a part of a day does not count."""
        answer = read(get(operator, "/certs"))
        assert answer["client_cas"][0]["source"] == "/etc/tls/ca.crt"
        assert answer["client_cas"][0]["is_self_signed"] is True
        (crl,) = answer["revocation_lists"]
        assert (crl["source"], crl["issuer"], crl["days_left"], crl["revoked"]) == (
            "/etc/tls/ca.crl",
            "CN=Root",
            6,
            3,
        )
        assert crl["next_update"].endswith("Z")

    def test_pem_is_what_clients_verify_with(self, operator: FakeOperator) -> None:
        """`curl --cacert` takes the page as it is."""
        page = get(operator, "/certs/server.pem")
        assert page.body == ISSUED.cert_pem
        assert page.content_type == "application/x-pem-file"


class TestConfig:
    def test_lines_are_shown_as_they_are(self, operator: FakeOperator) -> None:
        """Who masks secrets is who knows them; the page adds nothing."""
        body = get(operator, "/config").body.decode()
        assert body.splitlines() == ["listen: 0.0.0.0:443  # default", "tls_key_password: ***  # environment"]


class TestConnections:
    def test_newest_come_first(self) -> None:
        """Whoever looks wants to see who is coming in."""
        answer = read(get(FakeOperator(open=[connection(9.0), connection(0.25), connection(1.0)]), "/connections"))
        assert [each["age_seconds"] for each in answer["connections"]] == [0.25, 1.0, 9.0]
        assert answer["connections"][0]["principal"] == "spiffe://prod/web"
        assert (answer["total"], answer["shown"]) == (3, 3)

    @pytest.mark.parametrize(("sort", "ages"), [("oldest", [9.0, 5.0, 1.0]), ("busiest", [5.0, 9.0, 1.0])])
    def test_order_can_be_chosen(self, sort: str, ages: list[float]) -> None:
        """By age, or by bytes."""
        open_connections = [connection(1.0), connection(5.0, traffic=7), connection(9.0, traffic=3)]
        answer = read(get(FakeOperator(open=open_connections), "/connections", sort=sort))
        assert [each["age_seconds"] for each in answer["connections"]] == ages

    def test_unknown_order_is_400(self, operator: FakeOperator) -> None:
        """The answer names those there are."""
        page = get(operator, "/connections", sort="loudest")
        assert (page.status, page.body) == (400, b"sort is one of newest, oldest, busiest.\n")
        assert operator.asked == []

    def test_number_is_bounded_and_the_total_told(self) -> None:
        """Of more than can be shown, the first of the order are."""
        many = (connection(float(age)) for age in range(MOST_CONNECTIONS + 5))
        answer = read(get(FakeOperator(open=many), "/connections"))
        assert (answer["total"], answer["shown"]) == (MOST_CONNECTIONS + 5, MOST_CONNECTIONS)
        assert len(answer["connections"]) == MOST_CONNECTIONS
        assert max(each["age_seconds"] for each in answer["connections"]) == MOST_CONNECTIONS - 1

    def test_none_is_an_empty_list(self, operator: FakeOperator) -> None:
        """Still JSON."""
        assert read(get(operator, "/connections")) == {"total": 0, "shown": 0, "connections": []}

    def test_each_is_a_line(self) -> None:
        """`grep` finds a client, and a name that a client chose makes no line."""
        odd = connection(1.0, server_name='a"\nb')
        body = get(FakeOperator(open=[odd, connection(2.0)]), "/connections").body.decode()
        assert [line.count('"client"') for line in body.splitlines()] == [0, 1, 1, 0]


class TestClusters:
    def test_upstream_is_shown_with_its_failures(self, operator: FakeOperator) -> None:
        """What the pool knows of the app, and what it learned of its keep-alive."""
        assert read(get(operator, "/clusters"))["clusters"] == [
            {
                "cluster": "app",
                "upstream": "127.0.0.1:8080",
                "protocol": "http/1.1",
                "weight": 1,
                "health": "healthy",
                "why": "",
                "active": 0,
                "ejections": 0,
                "open": 3,
                "idle": 2,
                "pending": 1,
                "connects": 9,
                "failures": {"upstream_connect_refused": 4},
                "last_error": "refused",
                "keep_alive_seconds": 5.0,
            }
        ]


class TestHandshakes:
    def test_it_shows_who_was_turned_away(self, operator: FakeOperator) -> None:
        """The page is what the listener remembers."""
        assert read(get(operator, "/handshakes")) == {"rejections": [{"reason": "expired"}]}


class TestChanges:
    def test_reload_tells_what_came_of_it(self, operator: FakeOperator) -> None:
        """One sentence, for the log of whoever rotates certificates."""
        page = post(operator, "/reload")
        assert (page.status, page.body) == (200, b"Reloaded: what the settings and files say now is in force.\n")

    def test_reload_that_fails_is_409_with_every_problem(self) -> None:
        """`curl --fail` fails, and a person reads what to mend and that nothing is worse than before."""
        page = post(FakeOperator(reload_failure=(RELOAD_FAILURE,) * 2), "/reload")
        assert page.status == 409
        assert page.body.decode().splitlines() == [
            "Nothing was changed; what was in force before still is:",
            RELOAD_FAILURE,
            RELOAD_FAILURE,
        ]

    def test_reload_of_some_workers_only_does_not_say_that_nothing_changed(self) -> None:
        """Clients of some have what is new, and a person must know of which."""
        page = post(FakeOperator(reload_failure=PartlyReloaded(["worker 1: reloaded", "worker 2: not"])), "/reload")
        assert page.status == 409
        assert page.body.decode().splitlines() == [
            "Not all workers have reloaded:",
            "worker 1: reloaded",
            "worker 2: not",
        ]

    def test_drain_begins(self, operator: FakeOperator) -> None:
        """The answer comes before the end."""
        assert post(operator, "/drain").status == 202
        assert operator.asked == ["drain"]

    def test_log_level_is_set(self, operator: FakeOperator) -> None:
        """By the names of the setting."""
        page = post(operator, "/logging", level="debug")
        assert (page.status, page.body) == (200, b"logging from debug upwards\n")
        assert operator.asked == ["set_log_level debug"]

    @pytest.mark.parametrize("query", [{}, {"level": ""}, {"level": "DEBUG"}, {"level": "loud"}, {"lvl": "debug"}])
    def test_unknown_log_level_is_400(self, operator: FakeOperator, query: dict[str, str]) -> None:
        """Nothing is changed, and the answer is the request that would have worked."""
        page = post(operator, "/logging", **query)
        assert page.status == 400
        assert b"POST /logging?level=debug|info|warn|error" in page.body
        assert operator.asked == []
