"""A limit on the time that torch.export spends on arithmetic with sizes.

With all sizes free, the expressions of sizes can grow until sympy takes minutes over one operator. Time
spent elsewhere does not count: a large model may take as long as it takes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import sympy
from sympy.core.cache import clear_cache
from torch.utils import _sympy

TICK = 0.1
_ARITHMETIC = tuple(os.path.join(p.__path__[0], "") for p in (sympy, _sympy))


class TookTooLong(BaseException):
    """Arithmetic with sizes took too long; no `except Exception` in between holds it up."""


@contextmanager
def arithmetic_limited(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` when sympy has used so many seconds of processor time.

    It does nothing outside the main thread, and where a program uses this timer already.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or any(signal.getitimer(signal.ITIMER_VIRTUAL)):
        yield
        return
    spent = 0.0

    def tick(_: int, frame: FrameType | None) -> None:
        nonlocal spent
        # Only here to interrupt is safe: PyTorch's own code may be about to restore its state.
        if frame is None or not frame.f_code.co_filename.startswith(_ARITHMETIC):
            return
        spent += TICK
        if spent > seconds:
            spent /= 2  # not again while it unwinds
            raise TookTooLong

    before = signal.signal(signal.SIGVTALRM, tick)
    signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)
    try:
        yield
    except TookTooLong:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        clear_cache()  # it may hold what was half known of an expression
        raise
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
