"""What the command line accepts. Imports nothing heavy, so that `--help` is there at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch2mlx import __version__
from torch2mlx.stages import STAGES

_DESCRIPTION = """\
Compile a PyTorch model into a folder with a standalone, readable MLX module: model_mlx.py,
model.safetensors and config.json.

SOURCE is one of
  torchvision:NAME      a torchvision model, with random weights
  timm:NAME             a timm model, with random weights
  hf:DIR                a local transformers folder: config.json and safetensors
  pkg.mod:NAME          a module, a module class or a function that builds one
  path/file.py:NAME     the same from a file
  FILE.pt2              what torch.export.save wrote
  FILE.pt (.pth, .pkl)  what torch.save(model) wrote; needs --trust-pickle
"""
_EXAMPLES = """\
examples:
  torch2mlx-compile torchvision:resnet18 -o resnet18_mlx
  torch2mlx-compile net.py:Net --input 2,3,64,64
  torch2mlx-compile net.py:build --input tokens=int64[2,16] --input inputs.npz
  torch2mlx-compile hf:./my-bert --task text-classification -o bert_mlx
  torch2mlx-compile net.py:Net --dump emit | less
  torch2mlx-compile net.py:Net --explain
  torch2mlx-compile net.py:Net --analyze --report net.html
  torch2mlx-compile torchvision:resnet50 --weights resnet50.pth
  torch2mlx-compile hf:./my-llm --quantize 4 -o llm_mlx
  torch2mlx-compile --to-torch llm_mlx -o llm_torch
  torch2mlx-compile net.py:Net -o net_mlx --check
  torch2mlx-compile net.py:Net --verify net_mlx
  torch2mlx-compile --diff net_mlx other_mlx

exit status: 0 done, 1 compiled but the outputs differ from PyTorch's, or edits conflict with the new
code; analyzed and it does not compile as it is; checked or compared and something differs. 2 refused
with a reason, 70 a bug in torch2mlx, 130 interrupted.
"""


class Options(argparse.Namespace):
    """The parsed command line."""

    source: str | None
    to_torch: Path | None
    output: Path | None
    inputs: list[str]
    name: str | None
    io_layout: Any
    static: bool
    verify: bool
    dump: str | None
    explain: bool
    analyze: bool
    reports: list[Path]
    check: bool
    verify_folder: Path | None
    diff: list[Path] | None
    certificate: bool
    annotate: bool
    source_map: bool
    repro: Path | None
    disable: list[str]
    fold_bn: bool
    weights: Path | None
    dtype: str | None
    quantize: int | None
    group_size: int | None
    mode: str
    stubs: bool
    trust_pickle: bool
    task: str | None
    quiet: bool
    json: bool

    @property
    def writes(self) -> bool:
        """Whether a folder is written: a dump or an explanation needs none."""
        reads = self.dump or self.explain or self.analyze
        if self.check or self.verify_folder is not None:
            return False
        return self.output is not None or not reads

    @property
    def needs_values(self) -> bool:
        """Whether the model is run."""
        if self.verify_folder is not None or self.dump == "verify":
            return True
        return self.writes and (self.verify or self.certificate)


def parse(argv: Sequence[str] | None) -> Options:
    """Parse `argv`, or the process's own arguments; a wrong one ends the process with 2."""
    parser = _parser()
    options = parser.parse_args(argv, namespace=Options())
    given = [options.source, options.to_torch, options.diff]
    if sum(what is not None for what in given) != 1:
        parser.error("give either SOURCE or --to-torch FOLDER or --diff OLD NEW")
    if options.quantize is None and (options.group_size or options.mode != "affine"):
        parser.error("--group-size and --mode go with --quantize BITS")
    if options.reports and not options.analyze:
        parser.error("--report goes with --analyze")
    if options.analyze and (options.output or options.to_torch):
        parser.error("--analyze writes no folder: leave out --output and --to-torch")
    if options.analyze and (options.dump or options.explain):
        parser.error("--analyze goes neither with --dump nor with --explain")
    _check_review(parser, options)
    return options


def _check_review(parser: argparse.ArgumentParser, options: Options) -> None:
    folder = options.verify_folder
    if (options.check or folder is not None) and options.source is None:
        parser.error("--check and --verify go with SOURCE")
    chosen = [options.check, folder is not None, options.analyze]
    if sum(chosen) > 1 or (any(chosen[:2]) and (options.dump or options.explain)):
        parser.error(
            "--check, --verify, --analyze, --dump and --explain exclude one another"
        )
    if folder is not None and options.output is not None:
        parser.error("--verify FOLDER writes nothing: leave out --output")
    if options.repro is not None and options.repro.suffix != ".py":
        parser.error("--repro: the name of the script must end in .py")
    if options.repro is not None and not options.verify:
        parser.error("--repro goes not with --no-verify")


class _IOLayout(argparse.Action):
    """`LAYOUT` for all, or `NAME=LAYOUT` once per name."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        name, named, layout = str(values).rpartition("=")
        if layout not in ("mlx", "torch"):
            parser.error(f"argument --io-layout: {layout!r} is not mlx or torch")
        known = getattr(namespace, self.dest)
        earlier = known if isinstance(known, dict) else {}
        setattr(namespace, self.dest, {**earlier, name: layout} if named else layout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch2mlx-compile",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"torch2mlx {__version__}")
    add("source", metavar="SOURCE", nargs="?", help="the model; see above")
    add(
        "--to-torch",
        type=Path,
        metavar="FOLDER",
        help="instead: write the weights of a generated FOLDER for PyTorch again, to the folder or "
        ".safetensors file OUT",
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="folder to write (default: ./NAME_mlx, after --to-torch ./NAME_torch)",
    )
    _add_model_options(parser)
    _add_weight_options(parser)
    _add_output_options(parser)
    _add_review_options(parser)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the model").add_argument
    add(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        metavar="SPEC",
        help="an example input, [NAME=]2,3,64,64 or [NAME=]int64[2,16] or FILE.npz; "
        "once per input (default: inferred)",
    )
    add("--name", help="what the model is called (default: its name in SOURCE)")
    add("--task", help="hf: which head the model gets, e.g. text-classification")
    add(
        "--io-layout",
        action=_IOLayout,
        metavar="[NAME=]LAYOUT",
        help="images come in and go out as [B, H, W, C] (mlx) or [B, C, H, W] (torch); once per input, "
        "or output, or output[0], to choose for each (default: mlx)",
    )
    add("--static", action="store_true", help="fix all input sizes")
    add(
        "--disable-pass",
        dest="disable",
        action="append",
        default=[],
        metavar="NAME",
        help="leave a pass out; may be given more than once",
    )
    add(
        "--fold-bn",
        action="store_true",
        help="fold what inference does not change: batch norms into convolutions, expressions of "
        "parameters alone into parameters; faster, but not for training",
    )
    add(
        "--stubs",
        action="store_true",
        help="what is not supported becomes functions to fill in, instead of an error",
    )
    add(
        "--trust-pickle",
        action="store_true",
        help="load pickled sources, which can run code that they contain",
    )


def _add_weight_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the weights").add_argument
    add(
        "--weights",
        type=Path,
        metavar="PATH",
        help="take them from this checkpoint, by the names of the model's state dict: safetensors (a file, "
        "an index, or a folder) or what torch.save(model.state_dict()) wrote",
    )
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="store all floating-point weights like this (default: as they are)",
    )
    add(
        "--quantize",
        type=int,
        metavar="BITS",
        help="store the weights of linear layers and embeddings in BITS bits each",
    )
    add(
        "--group-size",
        type=int,
        metavar="N",
        help="weights that share a scale (default: 64, 32 or 16, after the mode)",
    )
    add(
        "--mode",
        choices=("affine", "mxfp4", "nvfp4", "mxfp8"),
        default="affine",
        help="how weights are quantized (default: affine)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is done and printed")
    group.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare the outputs with PyTorch's",
    )
    group.add_argument(
        "--analyze",
        action="store_true",
        help="only report what compiles, what does not and why; no folder is written",
    )
    group.add_argument(
        "--report",
        dest="reports",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the analysis to FILE too, as its ending says: .html, .md, .json or .txt; "
        "may be given more than once",
    )
    only = group.add_mutually_exclusive_group()
    only.add_argument(
        "--dump",
        choices=STAGES,
        metavar="STAGE",
        help=f"print one stage ({', '.join(STAGES)}); without -o nothing is written",
    )
    only.add_argument(
        "--explain",
        action="store_true",
        help="print what was decided and why; without -o nothing is written",
    )
    only.add_argument("--json", action="store_true", help="print one JSON object")
    only.add_argument("--quiet", action="store_true", help="print errors only")


def _add_review_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("review, and proof").add_argument
    add(
        "--check",
        action="store_true",
        help="write nothing; print what compiling again would change in OUT's code, and exit with 1 if it would",
    )
    add(
        "--verify",
        dest="verify_folder",
        type=Path,
        metavar="FOLDER",
        help="write nothing; compare this generated folder, edited or not, with PyTorch",
    )
    add(
        "--diff",
        nargs=2,
        type=Path,
        metavar=("OLD", "NEW"),
        help="instead: print what differs between two generated folders: code, weights and outputs",
    )
    add(
        "--repro",
        type=Path,
        metavar="FILE.py",
        help="where the outputs differ from PyTorch's: write a small script that shows it",
    )
    add(
        "--certificate",
        action="store_true",
        help="record an input and PyTorch's output, so that `python model_mlx.py --selftest` proves the "
        "port without torch",
    )
    add(
        "--annotate",
        action="store_true",
        help="comments in the code that name the lines of PyTorch it comes from",
    )
    add(
        "--source-map",
        action="store_true",
        help="write model_mlx.map.json: generated line -> PyTorch's file and line",
    )
