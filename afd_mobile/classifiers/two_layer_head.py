"""The most common head of one's own: two linear layers where the library's network has one."""

from __future__ import annotations

import re

from torch import Tensor, nn

from afd_mobile.classifiers.weights_file import WeightsFile


def take_two_layer_head(file: WeightsFile, network: nn.Module) -> str | None:
    """Puts the head that the file has in place of the network's last layer, in place.

    It is taken where nothing else is possible: two linear layers in a row, of which the first
    takes what the network's last layer takes, and the second what the first gives, and nothing
    besides. What lies between them has no weights; it is taken as a ReLU.

    Returns:
        What a person must know; None where the file has no such head.
    """
    name, last = list(network.named_modules())[-1]
    if not isinstance(last, nn.Linear):
        return None
    parent = name.rpartition(".")[0]
    if parent and isinstance(network.get_submodule(parent), nn.Sequential):
        name = parent
    own = {f"{name}.{key}" for key in network.get_submodule(name).state_dict()}
    heads = [_layers(state, name) for state in file.states.values()]
    shapes = {tuple((n, tuple(w.shape)) for n, w in head.items()) for head in heads if head}
    if len(shapes) != 1:
        return None
    ((number, (hidden, given)), (second, (classes, taken))) = shapes.pop()
    if (given, taken) != (last.in_features, hidden) or f"{name}.{second}.weight" in own:
        return None
    layers: list[nn.Module] = [nn.Identity() for _ in range(second + 1)]
    layers[number], layers[second] = nn.Linear(given, hidden), nn.Linear(hidden, classes)
    activated = second > number + 1
    if activated:
        layers[number + 1] = nn.ReLU()
    network.set_submodule(name, nn.Sequential(*layers))
    between = "a ReLU between them, as is usual" if activated else "nothing between them"
    return (
        f"{file.path.name}: a head of two layers is taken, {given} to {hidden} to {classes}, with "
        f"{between}; if yours computes otherwise, give the network as a factory"
    )


def _layers(state: dict[str, Tensor], name: str) -> dict[int, Tensor] | None:
    """The weights of two linear layers with biases, by their numbers; None of anything else."""
    entry = re.compile(rf"(?:.*\.)?{re.escape(name)}\.(\d+)\.(weight|bias)")
    found = [(m, value) for key, value in state.items() if (m := entry.fullmatch(key))]
    weights = {int(m[1]): value for m, value in found if m[2] == "weight"}
    biases = {int(m[1]): value for m, value in found if m[2] == "bias"}
    linear = len(weights) == 2 and all(weight.ndim == 2 for weight in weights.values())
    fits = linear and all(
        n in biases and biases[n].shape == weight.shape[:1] for n, weight in weights.items()
    )
    return dict(sorted(weights.items())) if fits and len(biases) == 2 else None
