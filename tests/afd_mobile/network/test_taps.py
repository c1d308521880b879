from __future__ import annotations

import pytest

from afd_mobile.common.errors import UsageError
from afd_mobile.network.taps import Taps, preset_taps, single_tap


def test_what_goes_with_each_preset() -> None:
    assert preset_taps("mobile", []) == preset_taps("mobile", ["auto"]) == Taps(None, ("auto",))
    typed = ["scale:features.8.conv.1", "residual:features.9"]
    assert preset_taps("mobile", typed) == Taps(None, tuple(typed))
    assert preset_taps("paper", []) == Taps()
    assert preset_taps("paper", ["D1"]) == Taps("D1")


def test_the_nodes_are_those_of_typed_places() -> None:
    assert preset_taps("mobile", ["scale:a.b", "residual:c"]).nodes == ["a.b", "c"]
    assert preset_taps("mobile", []).nodes == preset_taps("paper", ["D1"]).nodes == []


@pytest.mark.parametrize(
    ("preset", "typed", "said"),
    [
        ("mobile", ["D1"], "--taps D1: the preset mobile takes auto alone, or KIND:NODE"),
        ("mobile", ["scale:"], "--taps scale:: .* with a KIND of scale, residual;"),
        ("mobile", ["scale:a", "auto"], "--taps auto: .* takes auto alone"),
        ("mobile", ["auto", "auto"], "takes auto alone"),
        ("paper", ["auto"], "--taps auto: --preset paper takes one plain NODE"),
        ("paper", ["scale:a"], "--taps scale:a: --preset paper takes one plain NODE"),
        ("paper", ["D1", "D2"], "--taps D1 D2: --preset paper takes one plain NODE"),
    ],
)
def test_what_does_not_go_with_a_preset(preset: str, typed: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        preset_taps(preset, typed)


def test_a_single_tap_without_a_preset() -> None:
    assert single_tap(["D1"], "this") == Taps("D1") and single_tap([], "this") == Taps()
    with pytest.raises(UsageError, match="--taps auto: this takes one plain NODE"):
        single_tap(["auto"], "this")
