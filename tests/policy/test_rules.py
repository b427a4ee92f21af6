"""`sidecar.policy.rules`: rules as an operator writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigError, Problem
from sidecar.policy import matchers
from sidecar.policy.authz import Rule, Rules
from sidecar.policy.conditions import Condition
from sidecar.policy.matchers import MOST_TERMS, NOBODY
from sidecar.policy.rules import KEYS, MOST_RULES, read_rules
from sidecar.settings import ClientCertMode

DEFAULT = Rule(name="default", mode=ClientCertMode.OPTIONAL)


def read(*entries: object) -> tuple[Rule, ...]:
    return read_rules(list(entries), DEFAULT, "sidecar.yaml").rules


def problems(*entries: object) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        read(*entries)
    return list(caught.value.problems)


def problem(*entries: object) -> Problem:
    (found,) = problems(*entries)
    return found


VALUES = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=5) | st.integers(), max_size=2)
)


class TestReadRules:
    def test_every_key_is_read(self) -> None:
        """A rule with every key has what each of them says, in texts or lists of texts."""
        entry = {
            "name": "operators",
            "path": ["/admin/*", "/admin"],
            "method": "GET",
            "host": ["*.example.org"],
            "client_cert": "optional",
            "allow": ["ou=ops, ou=dev", "cn=root"],
            "deny": "serial=0A",
        }
        assert read(entry) == (
            Rule(
                name="operators",
                condition=Condition(("/admin/*", "/admin"), ("GET",), ("*.example.org",)),
                mode=ClientCertMode.OPTIONAL,
                allow=matchers.compile("ou=ops, ou=dev, cn=root"),
                deny=matchers.compile("serial=a"),
            ),
        )

    def test_order_and_default_are_kept(self) -> None:
        """The rules come in their order, before the default that was handed in."""
        rules = read_rules([{"path": "/b"}, {"path": "/a"}], DEFAULT, "x")
        assert [rule.name for rule in rules.rules] == ["rules[0]", "rules[1]"]
        assert rules.default is DEFAULT

    def test_no_entries_are_the_default_alone(self) -> None:
        """An empty list is no mistake."""
        assert read_rules([], DEFAULT, "x") == Rules((), DEFAULT)

    @pytest.mark.parametrize("entry", [{"path": "/a"}, {"path": "/a", "allow": "cn=a"}])
    def test_rule_requires_a_certificate_unless_told(self, entry: dict[str, str]) -> None:
        """A rule that does not say so does not let in those without certificate, whatever the default is."""
        assert read(entry)[0].mode is ClientCertMode.REQUIRED

    def test_empty_allow_list_lets_in_nobody(self) -> None:
        """A list without entries is not as good as no list."""
        assert read({"allow": []})[0].allow == NOBODY
        assert read({"path": "/a"})[0].allow is None

    @pytest.mark.parametrize(
        ("entry", "place", "hint"),
        [
            ({"paht": "/a"}, "rules[0]", "did you mean path?"),
            ({"client-cert": "none"}, "rules[0]", "did you mean client_cert?"),
            ({"ALLOW": "cn=a"}, "rules[0]", "did you mean allow?"),
            ({"x": "/a"}, "rules[0]", f"the keys are {', '.join(KEYS)}"),
            ({3: "/a"}, "rules[0]", "no key '3'"),
            ({"path": "a"}, "rules[0].path", "begin it with /"),
            ({"path": ["/a", "/b*"]}, "rules[0].path[1]", "not the end of /*"),
            ({"path": ["/a", ["/b"]]}, "rules[0].path[1]", "a list is no text"),
            ({"path": []}, "rules[0].path", "the list is empty"),
            ({"path": None}, "rules[0].path", "nothing is no text"),
            ({"path": 5}, "rules[0].path", "5 is no text"),
            ({"path": {"/a": "/b"}}, "rules[0].path", "a dict is no text"),
            ({"method": ["GET", "get"]}, "rules[0].method[1]", "did you mean GET?"),
            ({"method": []}, "rules[0].method", "the list is empty"),
            ({"host": "a:443"}, "rules[0].host", "without port"),
            ({"client_cert": "Required"}, "rules[0].client_cert", "none, optional or required"),
            ({"client_cert": False}, "rules[0].client_cert", "False is none of its values"),
            ({"client_cert": ["none"]}, "rules[0].client_cert", "a list is none of its values"),
            ({"allow": "dsn=a"}, "rules[0].allow", "did you mean dns?"),
            ({"allow": ["cn=a", "cn=b, )"]}, "rules[0].allow[1]", "at character 7"),
            ({"allow": None}, "rules[0].allow", "nothing is no text"),
            ({"allow": ""}, "rules[0].allow", "nothing is no text"),
            ({"allow": ["cn=a", None]}, "rules[0].allow[1]", "nothing is no text"),
            ({"deny": True}, "rules[0].deny", "True is no text"),
            ({"client_cert": "none", "allow": "cn=a"}, "rules[0].allow", "it would be ignored"),
            ({"client_cert": "none", "deny": []}, "rules[0].deny", "it would be ignored"),
            ({"name": "a b"}, "rules[0].name", "not a name"),
            ({"name": ""}, "rules[0].name", "not a name"),
            ({"name": "a" * 61}, "rules[0].name", "not a name"),
            ({"name": "a\nb"}, "rules[0].name", "not a name"),
            ({"name": None}, "rules[0].name", "not a name"),
            ({"path": ["/a"] * 1001}, "rules[0]", "1,001 patterns"),
            ({"allow": [",".join(["cn=a"] * MOST_TERMS), "cn=b"]}, "rules[0].allow", "1,001 terms, limit 1,000"),
            ("/a", "rules[0]", "KEY: VALUE"),
            (None, "rules[0]", "KEY: VALUE"),
        ],
    )
    def test_mistake_is_a_problem_with_its_place(self, entry: object, place: str, hint: str) -> None:
        """Each mistake is one problem, on one line, that names its place and what to write."""
        found = problem(entry)
        assert found.setting == place
        assert found.source == "sidecar.yaml"
        assert hint in f"{found.fact}; {found.fix}"
        assert "\n" not in str(found)

    def test_all_mistakes_are_reported_at_once(self) -> None:
        """One round of mending is enough."""
        found = problems(
            {"path": ["a", "/b"], "methd": "GET", "allow": ["cn=", "x=1"]}, {"path": "/ok"}, {"client_cert": "never"}
        )
        assert {each.setting for each in found} == {
            "rules[0]",
            "rules[0].path[0]",
            "rules[0].allow[0]",
            "rules[0].allow[1]",
            "rules[2].client_cert",
        }

    def test_rule_that_is_never_reached_is_a_problem(self) -> None:
        """Behind a rule about every request, no other is ever asked."""
        found = problem({"path": "/a"}, {"path": "/*"}, {"path": "/b"})
        assert (found.setting, found.fact) == ("rules[2]", "it is never reached: rules[1] is about every request")

    def test_name_that_two_rules_have_is_a_problem(self) -> None:
        """The log must tell which rule decided."""
        assert problem({"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}).setting == "rules[1].name"

    @pytest.mark.parametrize("entries", ["/a", {"path": "/a"}, None, 5])
    def test_what_is_no_list_is_a_problem(self, entries: object) -> None:
        """One rule is a list of one."""
        with pytest.raises(ConfigError, match="this is not a list"):
            read_rules(entries, DEFAULT, "x", "client.rules")

    def test_terms_are_bounded_over_all_texts_of_a_list(self) -> None:
        """A list may have as many terms as a single text."""
        texts = [",".join(["cn=a"] * (MOST_TERMS - 1)), "cn=b"]
        allow = read({"allow": texts})[0].allow
        assert allow is not None
        assert len(allow.terms) == MOST_TERMS

    def test_rules_are_bounded(self) -> None:
        """As many rules as the limit are taken, one more is not."""
        assert len(read(*[{"path": "/a"}] * MOST_RULES)) == MOST_RULES
        assert "501 rules, limit 500" in problem(*[{"path": "/a"}] * (MOST_RULES + 1)).fact

    @given(
        st.lists(st.dictionaries(st.sampled_from([*KEYS, "x"]) | st.text(max_size=3), VALUES, max_size=4), max_size=3)
    )
    def test_any_entries_are_rules_or_problems(self, entries: list[dict[str, object]]) -> None:
        """Whatever plain values a file holds, the outcome is rules or a list of problems."""
        try:
            assert len(read(*entries)) == len(entries)
        except ConfigError as error:
            found = error.problems
        else:
            found = ()
        assert all(each.setting.startswith("rules[") for each in found)


class TestListsOfTheDefault:
    """A rule about paths is no way around the lists that hold for everything."""

    DEFAULT = Rule(
        name="default",
        mode=ClientCertMode.REQUIRED,
        allow=matchers.compile("cn=alice"),
        deny=matchers.compile("cn=evil"),
    )

    def read(self, entry: object) -> Rule:
        (rule,) = read_rules([entry], self.DEFAULT, "x").rules
        return rule

    def test_rule_without_lists_has_those_of_the_default(self) -> None:
        """Whoever writes only a path wants no other clients."""
        rule = self.read({"path": "/up/*"})
        assert (rule.allow, rule.deny) == (self.DEFAULT.allow, self.DEFAULT.deny)

    def test_allow_list_of_its_own_counts_and_denial_stays(self) -> None:
        """A rule may let in others, but not those who are denied everywhere."""
        rule = self.read({"path": "/up/*", "allow": "cn=bob", "deny": "cn=eve"})
        assert rule.allow == matchers.compile("cn=bob")
        assert rule.deny == matchers.compile("cn=eve, cn=evil")

    def test_rule_that_looks_at_nobody_has_no_lists(self) -> None:
        """Health checks are let in whoever they are."""
        rule = self.read({"path": "/healthz", "client_cert": "none"})
        assert (rule.allow, rule.deny) == (None, None)

    @pytest.mark.parametrize("deny", ["sha256=" + "0a" * 32, "all(cn=x, not(sha256=" + "0a" * 32 + "))"])
    def test_denial_cannot_go_by_fingerprint(self, deny: str) -> None:
        """A certificate can be changed without becoming invalid, and has another fingerprint then."""
        found = problem({"path": "/a", "deny": deny})
        assert found.setting == "rules[0].deny"
        assert "spki" in found.fix
