"""Keeping from the terminal what PyTorch and the author's code say of runs that only try something."""

from __future__ import annotations

import io
import logging
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from warnings import catch_warnings, simplefilter

# They report, with tracebacks, what is raised as an error too.
_LOGGERS = (
    "torch._subclasses.fake_tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export._trace",
)


@contextmanager
def silent() -> Generator[None, None, None]:
    """Drops what is printed, warned and logged: an attempt that fails is no news."""
    nowhere = io.StringIO()
    with (
        unlogged(),
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        catch_warnings(),
    ):
        simplefilter("ignore")
        yield


@contextmanager
def unlogged() -> Generator[None, None, None]:
    """Drops what PyTorch logs about operators and sizes that it cannot trace."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
