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
  torch2mlx-compile torchvision:resnet50 --weights resnet50.pth
  torch2mlx-compile hf:./my-llm --quantize 4 -o llm_mlx
  torch2mlx-compile --to-torch llm_mlx -o llm_torch

exit status: 0 done, 1 compiled but the outputs differ from PyTorch's, 2 refused with a reason,
70 a bug in torch2mlx, 130 interrupted.
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
        return self.output is not None or not (self.dump or self.explain)


def parse(argv: Sequence[str] | None) -> Options:
    """Parse `argv`, or the process's own arguments; a wrong one ends the process with 2."""
    parser = _parser()
    options = parser.parse_args(argv, namespace=Options())
    if (options.source is None) == (options.to_torch is None):
        parser.error("give either SOURCE or --to-torch FOLDER")
    if options.quantize is None and (options.group_size or options.mode != "affine"):
        parser.error("--group-size and --mode go with --quantize BITS")
    return options


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
        default="mlx",
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
        help="fold each BatchNorm into the layer before it: faster, but not for training",
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
