"""The tables: which variants are compared, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from afd_mobile.classifiers.backbones import Backbone, classifier
from afd_mobile.classifiers.choose import inside_preset
from afd_mobile.experiments import baselines
from afd_mobile.experiments.insides import INSIDES, Inside
from afd_mobile.experiments.variant import Setup, Table, Variant
from afd_mobile.network.afd_module import AfdConfig, AfdModule
from afd_mobile.network.corrections import AnyModule, InsideModule, Place, Residual
from afd_mobile.network.fusion import fuse
from afd_mobile.network.taps import AUTO, KINDS
from afd_mobile.training.loop import sharpen_gate
from afd_mobile.training.objectives import objective_of
from afd_mobile.training.recipe import CPU
from afd_mobile.training.validation import Logits

# Taps nearer to the picture than the classifier's own.
EARLIER_TAPS: Mapping[str, Sequence[str]] = {"mobilenet_v2": ("features.0", "features.3")}
PRIORS = (0, 16, 256)
PICTURES = (20, 100, 1000)


# --- how variants are made ------------------------------------------------------------------------


def inside(
    setup: Setup,
    places: Sequence[Place] | None = None,
    drift_input: str = "dct",
    network: Inside | None = None,
) -> Logits:
    """The mobile preset inside the classifier.

    Args:
        places: some of those that `auto` chooses; all by default.
        network: what stands inside residuals in place of a RepConv.
    """
    config = inside_preset(setup.backbone, [AUTO], drift_input)
    if places is not None:
        config = replace(config, places=tuple(places))
    module = InsideModule(config)
    for place, correction in zip(config.places, module.corrections, strict=True):
        if network is not None and isinstance(correction, Residual):
            correction.set_submodule("enter", network(place.channels, place.width))
    return _corrected(setup, module)


def at_the_tap(setup: Setup) -> Logits:
    """The paper's module."""
    backbone = setup.backbone
    config = AfdConfig.paper(
        channels=backbone.channels,
        stride=backbone.stride,
        activation=backbone.activation,
    )
    return _corrected(setup, AfdModule(config))


def _corrected(setup: Setup, module: AnyModule) -> Logits:
    backbone, settings = setup.backbone, setup.settings
    module.reset_to_identity()
    objective = objective_of(settings.objective, module, backbone, settings.crop, CPU)
    setup.fit(module, objective)
    if isinstance(module, InsideModule):
        sharpen_gate(module, setup.pictures, backbone.input_size)
    return classifier(backbone, fuse(module), CPU)


AUTO_VARIANT = Variant(AUTO, inside)


# --- the tables -----------------------------------------------------------------------------------


def _depths(backbone: Backbone) -> list[Variant]:
    places = inside_preset(backbone, [AUTO]).places
    ends = [number for number, place in enumerate(places) if place.kind == "residual"]
    return [
        *(
            Variant(f"{AUTO}, behind {tap}", inside, tap=tap)
            for tap in EARLIER_TAPS.get(backbone.name, ())
        ),
        AUTO_VARIANT,
        *(
            Variant(f"{AUTO}, behind {places[n].node}", partial(inside, places=places[n + 1 :]))
            for n in ends
            if n + 1 < len(places)
        ),
        Variant(f"the paper's module at {backbone.tap}", at_the_tap),
        *(
            Variant(f"one residual at {places[n].node}", partial(inside, places=[places[n]]))
            for n in ends
        ),
    ]


def _map(_: Backbone) -> list[Variant]:
    others = [
        Variant(f"{AUTO}, map of {drift_input}", partial(inside, drift_input=drift_input))
        for drift_input in ("pixels", "shuffled-dct", "none")
    ]
    return [AUTO_VARIANT, *others]


def _corrections(_: Backbone) -> list[Variant]:
    others = [
        Variant(f"{AUTO}, {name} inside", partial(inside, network=network))
        for name, network in INSIDES.items()
    ]
    return [AUTO_VARIANT, *others]


def _kinds(backbone: Backbone) -> list[Variant]:
    places = inside_preset(backbone, [AUTO]).places
    groups = {kind: [place for place in places if place.kind == kind] for kind in KINDS}
    return [
        *(
            Variant(f"{kind} only", partial(inside, places=group))
            for kind, group in groups.items()
            if 0 < len(group) < len(places)
        ),
        AUTO_VARIANT,
    ]


def _fine_tuning(backbone: Backbone) -> list[Variant]:
    pooled = baselines.pooled_node(backbone)
    recentred = Variant("pooled features re-centred", baselines.recentred, tap=pooled)
    return [
        AUTO_VARIANT,
        Variant("fine-tuned behind the tap", partial(baselines.fine_tuned, gated=False)),
        Variant("fine-tuned behind the tap, gated", partial(baselines.fine_tuned, gated=True)),
        *(
            Variant(
                f"statistics of the picture, prior {prior}",
                partial(baselines.with_own_statistics, prior=prior),
            )
            for prior in PRIORS
        ),
        *([recentred] if pooled else []),
    ]


def _pictures(_: Backbone) -> list[Variant]:
    fewer = [Variant(f"{AUTO}, {count} pictures", inside, pictures=count) for count in PICTURES]
    return [*fewer, AUTO_VARIANT]


TABLES = {
    "depths": Table(
        "Where the corrections sit (the paper's Table I)",
        "`auto, behind NODE`: only those behind a node; of nodes before the classifier's own tap, "
        "those that `auto` chooses from there on. The last lines have one correction alone.",
        _depths,
    ),
    "map": Table(
        "What the drift map sees (the paper's Tables II and III)",
        "`auto`: DCT coefficients. Shuffled: each block's coefficients in an order of its own. "
        "Without a map, nothing tells how far a picture has drifted.",
        _map,
    ),
    "corrections": Table(
        "What is inside a residual (the paper's Table IV)",
        "`auto`: a RepConv, which a single 3x3 convolution replaces once fused. The others have as "
        "many parameters as that, within 10 %, and stay as they are.",
        _corrections,
    ),
    "kinds": Table(
        "Which kinds of correction",
        "`auto` has scales and residuals.",
        _kinds,
    ),
    "fine-tuning": Table(
        "Fine-tuning, and repairs without training (the paper's Table X)",
        "Fine-tuned: every weight behind the tap, Adam at 2e-4; gated: as much of it as the gate "
        "says, at the cost of both. The picture's own statistics in place of the normalisations' "
        "(arXiv 2006.16971; prior: as how many pictures those count), and pooled features moved by "
        "their mean at the estimated quality (after 2510.05635), need no training.",
        _fine_tuning,
    ),
    "pictures": Table(
        "How many pictures are trained on (the paper's Fig. 11)",
        "As many crops of fewer pictures; `auto` has all of them.",
        _pictures,
    ),
}
