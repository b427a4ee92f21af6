"""`sidecar.inject.pods`: into a pod and out again, and never over something of its owner's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.inject import yamlread, yamlwrite
from sidecar.inject.options import Options
from sidecar.inject.pods import add
from sidecar.inject.tree import NULL, TRUE, InjectError, Plain
from tests.inject.manifests import POD_SPEC, injected, injected_pod, pod, removed


def refusal_of(spec: str, **options: Any) -> str:
    with pytest.raises(InjectError) as caught:
        injected(pod(spec), **options)
    return str(caught.value)


NAMED = st.dictionaries(st.sampled_from(["image", "env", "x"]), st.sampled_from(["a", NULL, TRUE, Plain("0644")]))
CONTAINERS = st.lists(
    st.sampled_from(["web", "log", "db"]).flatmap(lambda name: NAMED.map(lambda rest: {"name": name, **rest})),
    max_size=3,
    unique_by=lambda each: each["name"],
)
NOTHING = st.sampled_from([NULL, [], "absent"])
SPECS = st.fixed_dictionaries(
    {"containers": CONTAINERS.filter(bool)},
    optional={"initContainers": CONTAINERS | NOTHING, "volumes": CONTAINERS | NOTHING, "hostNetwork": st.just(TRUE)},
)
METADATA = st.fixed_dictionaries(
    {}, optional={"annotations": st.sampled_from([NULL, {}, {"a": "b"}]), "labels": st.just({"app": "web"})}
)
OPTIONS = st.fixed_dictionaries(
    {"app_port": st.just(5000)},
    optional={
        "secret": st.just("tls"),
        "client_ca_secret": st.sampled_from(["tls", "ca"]),
        "classic": st.booleans(),
        "port": st.just(9443),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> str:
    """A Pod with or without the lists that the sidecar needs, in any order of keys."""
    spec = {key: value for key, value in draw(SPECS).items() if value != "absent"}
    root: dict[Any, Any] = {"apiVersion": "v1", "kind": "Pod", "spec": dict(draw(st.permutations([*spec.items()])))}
    if draw(st.booleans()):
        root["metadata"] = draw(METADATA | st.just(NULL))
    return yamlwrite.write([root])


class TestProperties:
    @settings(deadline=None, max_examples=60)
    @given(pods(), OPTIONS)
    def test_removal_leaves_nothing(self, text: str, options: dict[str, Any]) -> None:
        """What is injected and removed is the original, byte for byte."""
        assert removed(injected(text, **options)) == text

    @settings(deadline=None, max_examples=60)
    @given(pods(), OPTIONS)
    def test_twice_is_once(self, text: str, options: dict[str, Any]) -> None:
        """A second run with the same options changes no byte."""
        once = injected(text, **options)
        assert injected(once, **options) == once

    @settings(deadline=None, max_examples=60)
    @given(pods(), OPTIONS, OPTIONS)
    def test_last_options_count(self, text: str, first: dict[str, Any], last: dict[str, Any]) -> None:
        """Another run with other options is as good as that alone."""
        assert injected(injected(text, **first), **last) == injected(text, **last)


class TestAdd:
    def test_native_sidecar_comes_after_other_init_containers(self) -> None:
        """What prepares the pod, or hands out certificates, runs first."""
        spec = injected_pod(POD_SPEC + "initContainers:\n- name: migrate\n  image: web\n")
        assert [each["name"] for each in spec["initContainers"]] == ["migrate", "sidecar"]

    @pytest.mark.parametrize(
        ("spec", "options", "upstream"),
        [
            pytest.param(POD_SPEC, {}, "8080", id="first"),
            pytest.param(POD_SPEC, {"app": "metrics"}, "9090", id="by-name"),
            pytest.param(POD_SPEC, {"app_port": 5000}, "5000", id="by-port"),
            pytest.param(
                "containers:\n- name: a\n  ports:\n  - {containerPort: 53, protocol: UDP}\n  - {containerPort: 80}\n",
                {},
                "80",
                id="first-of-tcp",
            ),
        ],
    )
    def test_app_is_found(self, spec: str, options: dict[str, Any], upstream: str) -> None:
        """The app is the first container and its first TCP port, unless something else is said."""
        [container] = injected_pod(spec, **options)["initContainers"]
        assert container["env"][1]["value"] == f"http://127.0.0.1:{upstream}"

    @pytest.mark.parametrize(
        ("target", "options", "upstream"),
        [
            pytest.param("http", {}, "h2c://127.0.0.1:8080", id="by-name"),
            pytest.param("8080", {}, "h2c://127.0.0.1:8080", id="by-number"),
            pytest.param("5000", {"app_port": 5000}, "h2c://127.0.0.1:5000", id="port-that-nobody-names"),
            pytest.param("9090", {}, "http://127.0.0.1:8080", id="other-number"),
            pytest.param("8080", {"settings": {"upstream": "unix:/run/a"}}, "unix:/run/a", id="said-otherwise"),
        ],
    )
    def test_port_that_a_service_calls_h2c_is_spoken_to_in_it(
        self, target: str, options: dict[str, Any], upstream: str
    ) -> None:
        """If it is the app's; what the operator says of the upstream counts more."""
        template = yamlread.read(pod())[0]
        assert isinstance(template, dict)
        front = add(template, Options(**options), {target})
        spec: Any = template["spec"]
        variables = {each["name"]: each["value"] for each in spec["initContainers"][0]["env"]}
        assert variables["SIDECAR_UPSTREAM"] == upstream
        assert front.is_h2c is upstream.startswith("h2c")

    def test_container_that_kubectl_takes_is_the_app(self) -> None:
        """Whoever named a default container for kubectl has said which it is."""
        text = pod().replace(
            "  labels:", "  annotations:\n    kubectl.kubernetes.io/default-container: metrics\n  labels:"
        )
        assert "http://127.0.0.1:9090" in injected(text)

    @pytest.mark.parametrize(
        ("spec", "options", "message"),
        [
            pytest.param("containers:\n- name: a\n", {}, "the container 'a' names no containerPort", id="no-port"),
            pytest.param("containers: []\n", {}, "the pod has no containers", id="no-containers"),
            pytest.param("containers: x\n", {}, "containers is a single value, not a list", id="no-list"),
            pytest.param("containers:\n- x\n", {}, "containers has an entry that is no mapping", id="no-mapping"),
            pytest.param(
                POD_SPEC, {"app": "wbe"}, "no container 'wbe', only web, metrics; did you mean web?", id="slip"
            ),
            pytest.param(
                POD_SPEC, {"port": 9090}, "'metrics' has the port 9090, and so has SIDECAR_LISTEN", id="clash"
            ),
            pytest.param(POD_SPEC, {"port": 8080}, "'web' has the port 8080, and so has SIDECAR_LISTEN", id="own-port"),
            pytest.param(
                POD_SPEC.replace("9090", "8081"), {}, "give another with --set SIDECAR_ADMIN=127.0.0.1", id="admin"
            ),
            pytest.param(
                POD_SPEC.replace("9090", "8443") + "hostNetwork: true\n",
                {},
                "give another with --port",
                id="host-network",
            ),
            pytest.param(POD_SPEC + "os:\n  name: windows\n", {}, "the pod runs on Windows", id="windows"),
            pytest.param(POD_SPEC + "nodeSelector: {kubernetes.io/os: windows}\n", {}, "Windows", id="windows-nodes"),
            pytest.param(POD_SPEC.replace("metrics", "sidecar"), {}, "there is a container sidecar already", id="name"),
            pytest.param(
                POD_SPEC + "initContainers:\n- name: sidecar\n",
                {},
                "there is a container sidecar already",
                id="init-name",
            ),
            pytest.param(
                POD_SPEC + "volumes:\n- name: sidecar-certs\n",
                {},
                "there is a volume sidecar-certs already",
                id="volume",
            ),
        ],
    )
    def test_pod_that_does_not_allow_it_is_refused(self, spec: str, options: dict[str, Any], message: str) -> None:
        """The error names the object, what stands in the way, and what to do."""
        shown = refusal_of(spec, **options)
        assert shown.startswith("Pod web: ")
        assert message in shown

    def test_other_admin_port_makes_room(self) -> None:
        """What an error advises works."""
        assert "SIDECAR_ADMIN" in injected(pod(POD_SPEC.replace("9090", "8081")), settings={"admin": "127.0.0.1:9082"})

    def test_udp_port_is_no_clash(self) -> None:
        """QUIC of another container on the same number is another port."""
        spec = POD_SPEC.replace("containerPort: 9090", "containerPort: 8443\n    protocol: UDP")
        assert injected_pod(spec)["initContainers"]


class TestRemove:
    def test_what_was_added_since_stays(self) -> None:
        """Only what is ours goes."""
        text = injected(pod(), secret="web-tls").replace("  volumes:\n", "  volumes:\n  - name: theirs\n")
        assert "  volumes:\n  - name: theirs\n" in removed(text)

    def test_without_the_mark_nothing_is_ours(self) -> None:
        """A container with our name that somebody else made stays."""
        text = pod(POD_SPEC.replace("metrics", "sidecar"))
        assert removed(text) == text

    def test_changed_mark_is_refused(self) -> None:
        """Nothing is guessed."""
        with pytest.raises(InjectError, match="Pod web: its mark is not as it was written"):
            removed(injected(pod()).replace('{"absent"', '{"'))
