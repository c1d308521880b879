"""What `--taps` says: the one node whose features are corrected, or the places inside a classifier.

torch-free, so that a command line can check its arguments before it imports anything heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from afd_mobile.common.errors import UsageError

PRESETS = ("mobile", "paper")
AUTO = "auto"
LIST = "list"  # instead of places: print them
KINDS = ("scale", "residual")

# `places.choose_places` and `backbones.load_backbone` have it in code.
RULE = (
    "auto: scales behind the activation of every spatial convolution (depthwise where there are "
    "any) after the cut; residuals behind the last block of each resolution and every second "
    "block before it, shallow ones first, 4 in all, none that costs more than a 40th of the "
    "classifier. The cut, before which nothing is corrected: the classifier's own tap; where it "
    "has none, or a typed place lies before it, the deepest feature map with a single path before "
    "all typed places, and for auto the end of the last block at a stride of 8 or less (without "
    "one, of the first). A block ends where the network has a single path and is narrowest"
)


@dataclass(frozen=True)
class Taps:
    """Where a classifier is to be corrected.

    Attributes:
        node: whose output a module with a single tap corrects; None for the classifier's own.
        places: `auto`, or KIND:NODE of every correction inside; none for a single tap.
    """

    node: str | None = None
    places: tuple[str, ...] = ()

    @property
    def nodes(self) -> list[str]:
        """Of all places that are typed."""
        return [kind_and_node(text)[1] for text in self.places if text != AUTO]


def preset_taps(preset: str, typed: Sequence[str]) -> Taps:
    """What is typed after `--taps`, for an untrained module.

    Raises:
        UsageError: it does not go with the preset.
    """
    if preset == "paper":
        return single_tap(typed, "--preset paper")
    taps = Taps(places=tuple(typed) or (AUTO,))
    if taps.places != (AUTO,):
        for place in taps.places:
            kind_and_node(place)
    return taps


def single_tap(typed: Sequence[str], what: str) -> Taps:
    """What is typed after `--taps`, where there is a single tap.

    Args:
        what: has it, for messages.

    Raises:
        UsageError: it is not one plain node.
    """
    if len(typed) > 1 or any(text == AUTO or ":" in text for text in typed):
        raise UsageError(
            f"--taps {' '.join(typed)}: {what} takes one plain NODE, such as features.0 or D1"
        )
    return Taps(node=typed[0] if typed else None)


def kind_and_node(place: str) -> tuple[str, str]:
    """The two parts of KIND:NODE.

    Raises:
        UsageError: it is something else.
    """
    kind, _, node = place.partition(":")
    if kind not in KINDS or not node:
        raise UsageError(
            f"--taps {place}: the preset mobile takes auto alone, or KIND:NODE with a KIND of "
            f"{', '.join(KINDS)}; a plain NODE goes with --preset paper"
        )
    return kind, node


def nearest(name: str, known: Sequence[str]) -> str:
    """What is known and resembles a mistyped name, for the end of a message; empty if nothing."""
    longer = [other for other in known if other.startswith(name)]
    similar = get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.4)
    matches = list(dict.fromkeys([*longer, *similar]))[:3]
    return f"; nearest: {', '.join(matches)}" if matches else ""
