"""The command line itself: help, version, and what is refused before anything is done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torch2mlx import __version__
from torch2mlx.cli import main
from torch2mlx.cli.arguments import STAGES, parse


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def test_help_shows_every_option_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for option in (
        "-o OUT",
        "--input SPEC",
        "--name NAME",
        "--io-layout [NAME=]LAYOUT",
        "--fold-bn",
        "--static",
        "--no-verify",
        "--dump STAGE",
        "--explain",
        "--analyze",
        "--report FILE",
        "--disable-pass NAME",
        "--trust-pickle",
        "--task TASK",
        "--quiet",
        "--json",
        "--version",
    ):
        assert option in out
    assert "torch2mlx-compile torchvision:resnet18 -o resnet18_mlx" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"torch2mlx {__version__}\n"


def test_nothing_heavy_is_imported_for_help():
    code = (
        "import sys\nfrom torch2mlx.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'mlx', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_stages_are_those_of_the_compiler():
    from torch2mlx import api

    assert STAGES == api.STAGES


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "give either SOURCE or --to-torch FOLDER or --diff OLD NEW"),
        (
            ["a:b", "--to-torch", "x"],
            "give either SOURCE or --to-torch FOLDER or --diff OLD NEW",
        ),
        (["a:b", "--mode", "mxfp4"], "--group-size and --mode go with --quantize BITS"),
        (
            ["a:b", "--group-size", "32"],
            "--group-size and --mode go with --quantize BITS",
        ),
        (["a:b", "c:d"], "unrecognized arguments: c:d"),
        (
            ["a:b", "--dump", "lex"],
            "argument --dump: invalid choice: 'lex' (choose from 'capture', 'passes', "
            "'lower', 'layout', 'outline', 'emit', 'weights', 'verify')",
        ),
        (
            ["a:b", "--json", "--quiet"],
            "argument --quiet: not allowed with argument --json",
        ),
        (["a:b", "--stat"], "unrecognized arguments: --stat"),
        (
            ["a:b", "--io-layout", "x=nchw"],
            "argument --io-layout: 'nchw' is not mlx or torch",
        ),
    ],
)
def test_bad_usage(capsys, argv: list[str], why: str):
    assert refused(capsys, *argv) == f"torch2mlx-compile: error: {why}"


@pytest.mark.parametrize(
    ("argv", "layout"),
    [
        ([], None),
        (["torch"], "torch"),
        (["x=torch", "output[0]=mlx"], {"x": "torch", "output[0]": "mlx"}),
    ],
)
def test_io_layout(argv: list[str], layout: object):
    flags = [part for value in argv for part in ("--io-layout", value)]
    assert parse(["a:b", *flags]).io_layout == layout


@pytest.mark.parametrize(
    ("argv", "writes"),
    [
        ([], True),
        (["--json"], True),
        (["--dump", "emit"], False),
        (["--explain"], False),
        (["--dump", "emit", "-o", "out"], True),
        (["--explain", "-o", "out"], True),
    ],
)
def test_what_writes(argv: list[str], writes: bool):
    assert parse(["a:b", *argv]).writes is writes
