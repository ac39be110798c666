"""Blocks of calls on a synchronised device, after a warm-up until stationary."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

STATIONARY = 0.05  # warm-up ends when two successive blocks agree to this fraction ...
MAX_WARMUP_BLOCKS = 10  # ... or after so many


class Clock:
    """Times a function in blocks.

    Args:
        device: synchronised before and after each block if it is a CUDA device.
        blocks: timed blocks, after the warm-up.
        seconds: length of a block; the number of calls in it is found from the warm-up.
    """

    def __init__(self, device: str, blocks: int, seconds: float) -> None:
        self.device = device
        self.blocks = blocks
        self.seconds = seconds

    def block(self, call: Callable[[], Any], calls: int) -> float:
        """Seconds per call over ``calls`` calls."""
        self._synchronise()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self._synchronise()
        return (time.perf_counter() - start) / calls

    def warm_up(self, call: Callable[[], Any]) -> tuple[int, int]:
        """Run until stationary; returns the calls that fill a block and the blocks that were discarded."""
        last = self.block(call, 1)
        for done in range(1, MAX_WARMUP_BLOCKS + 1):
            calls = max(1, round(self.seconds / last))
            now = self.block(call, calls)
            if abs(now / last - 1) < STATIONARY:
                return max(1, round(self.seconds / now)), done
            last = now
        return max(1, round(self.seconds / last)), MAX_WARMUP_BLOCKS

    def times(self, call: Callable[[], Any]) -> list[float]:
        """Seconds per call, one value a block."""
        calls, _ = self.warm_up(call)
        return [self.block(call, calls) for _ in range(self.blocks)]

    def twice(self, call: Callable[[], Any]) -> tuple[list[float], list[float], int]:
        """The same function as A and as B in turn, A B B A ..., and the warm-up blocks discarded."""
        calls, discarded = self.warm_up(call)
        first: list[float] = []
        second: list[float] = []
        for i in range(self.blocks):
            for target in (first, second) if i % 2 == 0 else (second, first):
                target.append(self.block(call, calls))
        return first, second, discarded

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)
