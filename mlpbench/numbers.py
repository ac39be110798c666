"""Numbers with as many digits as their uncertainty allows."""

from __future__ import annotations

import math

WIDE = 10.0  # upper over lower end of a ratio that is hardly known
THIN = "\u202f"  # narrow no-break space between number and unit


def decimals(value: float, low: float | None = None, high: float | None = None) -> int:
    """Decimal places so that half the interval shows one digit (two when it starts with 1); without one, 3
    digits in all.
    """
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high) and high > low:
        half = (high - low) / 2
        first = math.floor(math.log10(half))
        places = -first + (1 if half / 10**first < 2 else 0)
        if value != 0:  # a wide interval must not leave the value without a digit of its own
            places = max(places, -math.floor(math.log10(abs(value))))
        return max(0, min(places, 8))
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, min(2 - math.floor(math.log10(abs(value))), 8))


def number(value: float | int | None, low: float | None = None, high: float | None = None) -> str:
    """The value as text, an int as it is; thousands are set apart; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int) and abs(value) < 10_000_000:
        return f"{value:,}".replace(",", THIN) if value >= 10_000 else str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}·10{_superscript(int(exponent))}"
    return f"{value:,.{decimals(value, low, high)}f}".replace(",", THIN)


def interval(low: float | None, high: float | None) -> str:
    """An interval as ``31.0–37.8``, both ends with the digits of the interval; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    places = decimals(low, low, high)
    if max(abs(low), abs(high)) >= 1e7 or places == 8:
        return f"{number(low)}–{number(high)}"
    return f"{low:,.{places}f}–{high:,.{places}f}".replace(",", THIN)


def ratio_text(value: float, low: float, high: float) -> tuple[str, str]:
    """A ratio and its interval; digits are added until no end that differs from 1 reads as 1, nor a positive end as 0.

    A ratio known only within a factor of ten or more has two digits, and so have its ends.
    """
    if low > 0 and WIDE * low < high < math.inf:
        return _two_digits(value), f"{_two_digits(low)}–{_two_digits(high)}"
    places = decimals(value, low, high)
    while places < 4 and any(round(end, places) == 1 != end for end in (low, high)):
        places += 1
    return f"{value:.{places}f}", f"{low:.{places}f}–{high:.{places}f}"


def _two_digits(value: float) -> str:
    return number(value) if value >= 100 else f"{value:.{max(0, min(1 - math.floor(math.log10(value)), 8))}f}"


def seconds(value: float | None) -> str:
    """A duration in the unit a person would use."""
    if value is None or not math.isfinite(value):
        return "–"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{number(value / divisor)}{THIN}{unit}"
    return f"{number(value / 86400)}{THIN}days"


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``: a duration in plain text, for the terminal."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def plural(count: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listing(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
