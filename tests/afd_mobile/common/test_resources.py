from __future__ import annotations

from afd_mobile.classifiers.sources import bundled_weights
from afd_mobile.common.resources import imagenet_classes, models_dir


def test_a_thousand_classes_in_imagenets_order() -> None:
    classes = imagenet_classes()
    wnids = [wnid for wnid, _ in classes]
    assert len(set(wnids)) == 1000 and wnids == sorted(wnids)
    assert classes[0] == ("n01440764", "tench")
    assert classes[281][1].startswith("tabby")
    assert all(name for _, name in classes)


def test_the_bundled_backbones_are_there() -> None:
    assert models_dir().is_dir()
    for name in ("mobilenet_v2", "squeezenet1_1"):
        assert bundled_weights(name).stat().st_size > 1_000_000
