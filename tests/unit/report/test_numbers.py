"""Numbers as a reader sees them."""

import math

import pytest

from mlpbench.numbers import THIN, decimals, interval, listing, number, ratio_text, seconds


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (34.1832, 31.02, 37.81, "34"),  # ± 3.4: the decimals carry nothing
        (15.93, 14.21, 17.84, "15.9"),  # ± 1.8: the first digit of the uncertainty is a 1, so one more
        (0.04213, 0.0411, 0.0432, "0.0421"),
        (1234567.0, None, None, f"1{THIN}234{THIN}567"),
        (0.123456, None, None, "0.123"),
        (5, None, None, "5"),
        (12000, None, None, f"12{THIN}000"),
        (1.5e-7, None, None, "1.50·10⁻⁷"),
        (float("nan"), None, None, "–"),
        (None, None, None, "–"),
    ],
)
def test_digits_follow_the_uncertainty(value, low, high, text):
    assert number(value, low, high) == text


def test_a_value_keeps_a_digit_of_its_own_however_wide_its_interval():
    assert number(0.3, 0.02, 20.6) == "0.3"


def test_decimals_of_numbers_without_an_interval_make_three_digits():
    assert [decimals(x) for x in (123.4, 12.34, 1.234, 0.01234)] == [0, 1, 2, 4]


def test_interval_has_the_digits_of_its_width():
    assert interval(14.21, 17.84) == "14.2–17.8"
    assert interval(math.nan, 1.0) == ""


def test_durations_and_lists_read_as_a_person_would_say_them():
    assert seconds(90) == f"90.0{THIN}s"
    assert seconds(600) == f"10.0{THIN}min"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing([]) == ""


def test_a_ratio_that_is_hardly_known_never_reads_as_1_within_0():
    assert ratio_text(1.3, 0.041, 41.3) == ("1.3", "0.041–41")
    assert ratio_text(1.04, 1.01, 1.07) == ("1.04", "1.01–1.07")
    assert ratio_text(150.0, 2.0, 11250.0) == ("150", f"2.0–11{THIN}250")
