from __future__ import annotations

import pytest
import torch

from afd_mobile.classifiers.backbones import Backbone
from afd_mobile.classifiers.choose import inside_preset
from afd_mobile.experiments.insides import INSIDES


@pytest.mark.parametrize("name", INSIDES)
def test_all_have_as_many_parameters_as_a_fused_repconv(name: str, mobilenet: Backbone) -> None:
    """Within a tenth, at every residual that `auto` chooses; and all of them learn."""
    choices = [p for p in inside_preset(mobilenet, ["auto"]).places if p.kind == "residual"]
    assert len(choices) == 4
    for place in choices:
        network = INSIDES[name](place.channels, place.width)
        fused = 9 * place.channels * place.width + place.width
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(fused, rel=0.1)
        out = network(torch.randn(2, place.channels, 5, 7))
        assert out.shape == (2, place.width, 5, 7)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("name", INSIDES)
def test_pictures_do_not_see_each_other(name: str) -> None:
    network, x = INSIDES[name](16, 8).eval(), torch.randn(3, 16, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


def test_attention_sees_the_whole_map() -> None:
    network, x = INSIDES["attention"](16, 8), torch.randn(1, 16, 6, 6, requires_grad=True)
    network(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None and x.grad[0].any(dim=0).all()
