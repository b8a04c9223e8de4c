"""Nothing that reads data may run it: no module of ours can, as far as its text tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("stream_hash", "workers") for path in (ROOT / package).rglob("*.py"))

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "yaml",
    "code",
    "codeop",
}
CALLS = {"eval", "exec", "compile", "__import__"}
NUMPY_READERS = {"load", "fromregex", "read_array", "genfromtxt", "loadtxt"}


def faults(source: str) -> Iterator[str]:
    """What a module's text says that could run data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or "", *(alias.name for alias in node.names)}
            yield from (name for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Attribute) and node.attr in {"pickle", "loads_pickle", "PickleSerializer"}:
            yield node.attr
        elif isinstance(node, ast.Call):
            yield from of_call(node)


def of_call(call: ast.Call) -> Iterator[str]:
    """The same of one call: builtins by name, numpy's readers unless they are told to refuse objects."""
    allowed = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if allowed.get("allow_pickle") not in (None, False):
        yield "allow_pickle"
    if isinstance(call.func, ast.Name) and call.func.id in CALLS:
        yield call.func.id
    if isinstance(call.func, ast.Attribute):
        of_numpy = isinstance(call.func.value, ast.Name) and call.func.value.id in {"np", "numpy"}
        if of_numpy and call.func.attr in NUMPY_READERS and allowed.get("allow_pickle") is not False:
            yield f"numpy.{call.func.attr}"
        if call.func.attr in {"import_module", "import_attribute", "literal_eval"}:
            yield call.func.attr
        if any(word.arg == "shell" and getattr(word.value, "value", None) is not False for word in call.keywords):
            yield "shell"


ALLOWED = {
    "stream_hash/cli/__init__.py": {"import_module"},  # a command's module, from the table in the same file
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_run_what_it_reads(path: Path) -> None:
    assert set(faults(path.read_text())) == ALLOWED.get(str(path.relative_to(ROOT)), set())


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "import pickle as p", "from pickle import loads", "import yaml", "from joblib import load"),
        *("import numpy as np; np.load(f)", "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)"),
        *("eval('1')", "exec(code)", "compile(a, b, 'exec')", "__import__(name)", "from rq.serializers import pickle"),
        *("importlib.import_module(name)", "rq.serializers.PickleSerializer", "subprocess.run(x, shell=True)"),
        *("def f():\n    import marshal", "numpy.lib.format.read_array(f, allow_pickle=True)", "import dill.source"),
    ],
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    assert list(faults(text))
