"""The floors of the loss that docs/results.md names."""

import math

import pytest
from paper.floors import floor


def test_only_what_the_window_has_not_shown_costs_anything():
    assert floor(['ab' * 20 + 'a']) == 0
    assert floor(['x' * 9 + 'a', 'x' * 9 + 'b']) == pytest.approx(math.log(2) / 9)
    assert floor(['x' * 8 + 'ab', 'y' * 8 + 'ba']) == 0, 'what differs has been announced'
