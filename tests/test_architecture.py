"""The house rules that can be checked: which way imports go, and where each module's tests are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sidecar"
STANDARD = sys.stdlib_module_names


@attrs.frozen
class Rule:
    """
    What the modules of one package may import.

    Attributes:
        ours: Packages of ours, or single modules of them, beside its own.
        theirs: Third-party packages.
        never: Modules of the standard library that it must do without.
    """

    ours: frozenset[str] = attrs.field(converter=frozenset, default=())
    theirs: frozenset[str] = attrs.field(converter=frozenset, default=())
    never: frozenset[str] = attrs.field(converter=frozenset, default=())


# What touches the world. Pure packages are handed what they need of it.
WORLD = {"asyncio", "datetime", "io", "logging", "os", "pathlib", "select", "selectors", "signal", "socket", "ssl"} | {
    "subprocess",
    "sys",
    "threading",
    "time",
}

EVERYTHING = Rule(
    ours={
        "admin",
        "app",
        "certs",
        "cgroup",
        "cli",
        "cli_certs",
        "cli_doctor",
        "cli_inject",
        "config",
        "console",
        "control",
        "credentials",
        "crew",
        "doctor",
        "errors",
        "healthcheck",
        "inject",
        "member",
        "merged",
        "observe",
        "pki",
        "policy",
        "proxy",
        "reloading",
        "settings",
        "spawning",
        "supervisor",
        "tls",
        "topology",
        "values",
        "waiting",
        "watching",
        "wire",
        "worker",
    },
    theirs={"OpenSSL", "attrs", "cryptography", "twisted", "zope"},
)

RULES = {
    "errors": Rule(theirs={"attrs"}, never=WORLD),
    "values": Rule(theirs={"attrs"}, never=WORLD),
    "settings": Rule(theirs={"attrs"}, never=WORLD - {"pathlib"}),  # a path is the type of some settings
    "topology": Rule(ours={"settings"}, theirs={"attrs"}, never=WORLD),
    "wire": Rule(ours={"errors"}, theirs={"attrs"}, never=WORLD),
    "policy": Rule(
        ours={"errors", "settings", "topology", "wire.events", "wire.fields"}, theirs={"attrs"}, never=WORLD
    ),
    "observe": Rule(ours={"errors", "settings"}, theirs={"attrs"}),
    "certs": Rule(ours={"errors", "settings"}, theirs={"attrs", "cryptography"}, never={"socket", "ssl", "time"}),
    "tls": Rule(
        ours={"certs", "errors", "policy.identity", "settings", "topology"},
        theirs={"OpenSSL", "attrs", "cryptography", "service_identity", "twisted", "zope"},
    ),
    "proxy": Rule(
        ours={"errors", "observe", "policy", "settings", "tls", "topology", "wire"},
        theirs={"OpenSSL", "attrs", "twisted", "zope"},
        never={"pathlib", "ssl"},
    ),
    "config": Rule(
        ours={"certs", "errors", "observe.logformat", "observe.logsyntax", "policy", "settings", "topology"},
        theirs={"attrs", "cryptography", "yaml"},
        never={"socket"},
    ),
    "admin": Rule(
        ours={"certs.describe", "errors", "observe.histogram", "observe.metrics", "settings", "wire"},
        theirs={"attrs", "prometheus_client", "twisted", "zope"},
    ),
    "pki": Rule(ours={"certs", "errors"}, theirs={"OpenSSL", "attrs", "cryptography", "service_identity"}),
    "app": EVERYTHING,
    "console": EVERYTHING,
    "credentials": EVERYTHING,
    "reloading": Rule(ours={"config", "credentials", "errors", "topology"}, theirs={"attrs", "twisted"}),
    "waiting": Rule(ours={"admin.operator", "config", "observe", "settings"}, theirs={"attrs"}),
    "watching": Rule(theirs={"twisted"}),
    "cgroup": Rule(),
    "control": Rule(ours={"errors"}, theirs={"attrs", "twisted", "zope"}),
    "spawning": Rule(ours={"config.names"}),
    "crew": Rule(
        ours={"admin.operator", "control", "errors", "merged", "observe", "settings", "spawning"},
        theirs={"attrs", "twisted"},
    ),
    "merged": Rule(ours={"admin", "certs.describe", "observe", "settings"}, theirs={"attrs"}),
    "member": Rule(
        ours={"admin.operator", "certs", "config", "control", "errors", "merged", "observe", "settings"},
        theirs={"attrs", "cryptography", "twisted"},
    ),
    "supervisor": EVERYTHING,
    "worker": EVERYTHING,
    "cli": EVERYTHING,
    "cli_certs": Rule(ours={"certs", "errors", "pki"}),
    "cli_inject": Rule(ours={"errors", "inject"}),
    "inject": Rule(ours={"config", "errors", "settings"}, theirs={"attrs", "yaml"}, never={"os", "pathlib", "socket"}),
    "cli_doctor": Rule(ours={"config", "doctor", "settings"}),
    "doctor": Rule(
        ours={"certs", "cgroup", "config", "errors", "settings", "topology", "wire.proxyproto"},
        theirs={"attrs", "cryptography"},
    ),
    "healthcheck": Rule(ours={"config", "errors", "settings", "topology", "wire.proxyproto"}, theirs={"cryptography"}),
    "__main__": EVERYTHING,
    "__init__": Rule(),
}

# More than its package may: single modules, each for a reason.
MORE = {
    "observe.logs": Rule(theirs={"twisted"}),  # where Twisted's log goes
    "observe.writer": Rule(theirs={"twisted", "zope"}),  # a descriptor that the reactor writes
    "policy.expressions": Rule(theirs={"re2"}),  # regular expressions that cannot blow up
    "policy.identity": Rule(theirs={"cryptography"}),  # reads a parsed certificate
    "wire.h2hpack": Rule(theirs={"hpack"}),  # reads header blocks
}

# What only annotations need is no dependency: nothing of it is there at run time.
ONLY_TYPES = {"observe.accesslog": {"proxy.downstream", "proxy.exchange", "proxy.tunnel"}}

# Modules whose tests are elsewhere than in a file of their name.
TESTED_ELSEWHERE = {
    "__main__",  # two lines; the scenarios run it
}

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


@attrs.frozen
class Import:
    """One import: a dotted name, its line, and whether it is for annotations only, or done inside a function."""

    name: str
    line: int
    only_types: bool
    is_late: bool


def imports(path: Path) -> Iterator[Import]:
    """Find the imports of a module; those from our package as «sidecar.package.module»."""

    def look(node: ast.AST, only_types: bool, is_late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, only_types, is_late)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                assert child.module is not None
                for alias in child.names:
                    yield Import(f"{child.module}.{alias.name}", child.lineno, only_types, is_late)
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                yield from look(child, True, is_late)
            else:
                late = is_late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from look(child, only_types, late)

    yield from look(ast.parse(path.read_text()), False, False)


def module_of(name: str) -> str | None:
    """The module of ours that a dotted name lies in, without «sidecar.»; None if it is not ours."""
    parts = name.split(".")
    if parts[0] != "sidecar":
        return None
    for size in range(len(parts), 1, -1):
        candidate = ".".join(parts[1:size])
        if candidate in MODULES:
            return candidate
    return "__init__" if len(parts) < 3 else f"{parts[1]}.__init__"


def package_of(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
class TestImports:
    def test_ours_go_in_the_directions_of_the_table(self, module: str) -> None:
        """A module imports from its own package, from those that its package may know, and what values are based on."""
        package = package_of(module)
        allowed = RULES[package].ours | MORE.get(module, Rule()).ours | {package, "__init__", "values"}
        wrong = [
            f"line {found.line}: {imported}"
            for found in imports(MODULES[module])
            if (imported := module_of(found.name)) is not None
            and not {imported, package_of(imported)} & allowed
            and not (found.only_types and imported in ONLY_TYPES.get(module, ()))
        ]
        assert not wrong

    def test_theirs_are_those_of_the_table(self, module: str) -> None:
        """A module imports no third-party package, and no part of the standard library, that its package must not."""
        rule, more = RULES[package_of(module)], MORE.get(module, Rule())
        wrong = []
        for found in imports(MODULES[module]):
            top = found.name.partition(".")[0]
            if top == "sidecar":
                continue
            if top in STANDARD:
                if top in rule.never:
                    wrong.append(f"line {found.line}: {found.name}")
            elif top not in rule.theirs | more.theirs:
                wrong.append(f"line {found.line}: {found.name}")
        assert not wrong

    def test_nobody_uses_the_global_reactor(self, module: str) -> None:
        """The reactor is handed in; only the worker, which installs it, may know it as a global."""
        if module != "worker":
            assert "twisted.internet.reactor" not in {found.name for found in imports(MODULES[module])}

    def test_package_init_holds_no_logic(self, module: str) -> None:
        """The __init__ of a package is a docstring, and perhaps names."""
        if module.endswith("__init__"):
            body = ast.parse(MODULES[module].read_text()).body
            assert all(isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.ImportFrom) for node in body)


class TestCycles:
    def test_no_module_imports_itself_over_others(self) -> None:
        """Imports at the top of modules have no cycles."""
        graph = {
            module: {
                imported
                for found in imports(path)
                if not found.only_types
                and not found.is_late
                and (imported := module_of(found.name)) not in (None, module)
            }
            for module, path in MODULES.items()
        }
        TopologicalSorter(graph).prepare()  # raises CycleError with the cycle in it


class TestTestFiles:
    @pytest.mark.parametrize(
        "module", [module for module in MODULES if not module.endswith("__init__") and module not in TESTED_ELSEWHERE]
    )
    def test_each_module_has_a_test_file_of_its_name(self, module: str) -> None:
        """Whoever changes a module knows from its name where its tests are."""
        *package, name = module.split(".")
        assert ROOT.joinpath("tests", *package, f"test_{name}.py").is_file()

    def test_exceptions_are_of_modules_that_there_are(self) -> None:
        """The lists of exceptions name nothing that has gone, and nothing that is none any more."""
        assert set(MODULES) >= TESTED_ELSEWHERE | set(MORE) | set(ONLY_TYPES)
        assert {package_of(module) for module in MODULES} == set(RULES)
        assert not [name for name in TESTED_ELSEWHERE if (ROOT / "tests" / f"test_{name}.py").exists()]
