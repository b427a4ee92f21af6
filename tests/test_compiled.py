"""The hot path that setup.py compiles: other tests run over either form of it, and this tells over which they did."""

from __future__ import annotations

import ast
import importlib
import os
import runpy
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LISTED: tuple[str, ...] = runpy.run_path(str(ROOT / "setup.py"))["COMPILED"]
EXPECTED = tuple(EXTENSION_SUFFIXES if os.environ.get("SIDECAR_COMPILE") == "1" else SOURCE_SUFFIXES)


class TestCompiled:
    @pytest.mark.parametrize("path", LISTED)
    def test_module_is_loaded_in_the_form_that_is_asked_for(self, path: str) -> None:
        """With SIDECAR_COMPILE=1 each listed module of this very tree comes as native code, else from its source."""
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert module.__file__ is not None
        assert Path(module.__file__).parent == (ROOT / path).parent
        assert module.__file__.endswith(EXPECTED)

    @pytest.mark.parametrize("path", LISTED)
    def test_slices_call_nothing_that_acts(self, path: str) -> None:
        """mypyc evaluates the bounds of a slice twice: what stands there may only look."""
        slices = [node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Slice)]
        calls = [node for each in slices for node in ast.walk(each) if isinstance(node, (ast.Call, ast.NamedExpr))]
        assert {ast.unparse(call).partition("(")[0] for call in calls} <= {"len", "match.end", "match.start"}

    def test_list_is_in_order(self) -> None:
        """The order of the list has no meaning, so it is that of the alphabet, and none is there twice."""
        assert list(LISTED) == sorted(set(LISTED))
