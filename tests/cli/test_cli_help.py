"""Help: complete, with examples, and cheap."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from stream_hash import __version__
from stream_hash.cli import COMMANDS, main
from tests.cli.support import Cli

HEAVY = {"numpy", "redis", "rq", "sklearn", "scipy", "rich", "prometheus_client"}


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def test_every_command_of_the_contract_is_there() -> None:
    assert set(COMMANDS) == {
        *("create", "ingest", "query", "get", "delete", "label"),
        *("tune", "train", "generations", "rollback", "reindex"),
        *("export", "import", "status", "metrics", "verify", "doctor", "dead", "drop"),
        *("evaluate", "worker", "trainer", "up", "down", "acl", "demo"),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(invoke: Cli, name: str) -> None:
    outcome = invoke(name, "--help")
    assert outcome.code == 0
    assert "Example:\n" in outcome.out
    assert f"stream-hash {name}" in outcome.out.partition("Example:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_short_helps_says_what_the_commands_say(name: str) -> None:
    assert command(name).short_help == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_has_a_help_text_or_choices(name: str) -> None:
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help or isinstance(parameter.type, click.Choice), parameter.opts


def test_help_lists_the_commands_in_order(invoke: Cli) -> None:
    outcome = invoke("--help")
    assert outcome.code == 0
    listed = [line.split()[0] for line in outcome.out.partition("Commands:\n")[2].splitlines()]
    assert listed == list(COMMANDS)


def test_the_version_is_the_package_s(invoke: Cli) -> None:
    assert invoke("--version").out == f"stream-hash, version {__version__}\n"


@pytest.mark.parametrize("args", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(variables: dict[str, str], args: list[str]) -> None:
    code = (
        "import sys\nfrom stream_hash.cli import main\n"
        f"try: main({args!r})\nexcept SystemExit as end: assert end.code == 0\n"
        f"print('LOADED', *sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize(
    "module", ["cli.query", "cli.index", "cli.backup", "cli.tune", "cli.training", "cli.worker", "cli.doctor", "jobs"]
)
def test_only_what_trains_imports_scikit_learn_and_scipy(variables: dict[str, str], module: str) -> None:
    code = f"import sys, stream_hash.{module}; print('LOADED', *sorted({{'sklearn', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "LOADED\n"


def test_a_query_imports_neither_tuning_nor_verification_nor_other_formats_nor_rq(variables: dict[str, str]) -> None:
    unused = {f"stream_hash.{name}" for name in ("service.tuning", "service.verify", "service.status", "formats.mat")}
    unused |= {"rq", "stream_hash.queue"}
    code = f"import sys, stream_hash.cli.query; print('LOADED', *sorted({unused!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "LOADED\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["create", "photos"], "Missing option '--dim'"),
        (["create", "photos", "--dim", "many"], "'many' is not a valid integer"),
        (["create", "photos", "--dim", "8", "--metric", "hamming"], "'hamming' is not one of"),
        (["ingest", "photos"], "Missing argument 'FILE...|-'"),
        (["query", "photos"], "Name the queries by one of"),
        (["query", "photos", "-", "--id", "a"], "Name the queries by one of"),
        (["query", "photos", "--id", "a", "-k", "0"], "0 is not in the range"),
        (["label", "photos", "a"], "Give ID and LABEL, or --file FILE."),
        (["label", "photos", "a", "b", "--file", "c"], "Give ID and LABEL, or --file FILE."),
        (["label", "photos"], "Give ID and LABEL, or --file FILE."),
        (["create", "photos", "--dim", "8", "--bits", "8", "--items", "9"], "Give one of --bits and --items."),
        (["tune", "photos", "--save"], "--save goes with --target-recall or --target-precision."),
        (["tune", "photos", "--reset", "--target-recall", "0.5"], "--reset goes alone."),
        (["tune", "photos", "--target-recall", "0.5", "--target-precision", "0.5"], "Give one of --target-recall"),
        (["tune", "photos", "--target-recall", "0"], "0.0 is not in the range"),
        (["train", "photos", "--learner", "luck"], "'luck' is not one of"),
        (["train", "photos", "--window", "0"], "0 is not in the range"),
        (["rollback", "photos"], "Missing argument 'GENERATION'"),
        (["rollback", "photos", "0"], "0 is not in the range"),
        (["reindex", "photos"], "to go on with one, give --resume."),
        (["reindex", "photos", "--resume", "--throttle", "0"], "0.0 is not in the range"),
        (["trainer", "--interval", "0"], "0.0 is not in the range"),
        (["trainer", "--labels", "0"], "0 is not in the range"),
        (["worker", "--processes", "0"], "0 is not in the range"),
        (["status", "--jsno"], "No such option"),
        (["dead", "show", "photos"], "Missing argument 'LETTER'"),
        (["dead", "retry", "photos", "0"], "0 is not in the range"),
        (["dead", "bury", "photos"], "No such command 'bury'"),
        (["drop"], "Missing argument 'NAME'"),
        (["doctor", "photos", "--here", "worker"], "--here goes without INDEX and --verify."),
    ],
)
def test_bad_usage_ends_with_2_and_says_how_to_ask_for_help(invoke: Cli, args: list[Any], message: str) -> None:
    outcome = invoke(*args)
    assert outcome.code == 2
    assert outcome.out == ""
    assert message in outcome.err
    assert "--help' for help." in outcome.err
