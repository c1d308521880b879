from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from afd_mobile.common.errors import UsageError
from afd_mobile.network import fusion
from afd_mobile.network.afd_module import AfdModule
from afd_mobile.network.repconv import RepConv
from tests.afd_mobile.single_tap import single_tap_config


def contents(module: nn.Module) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in module.state_dict().items()}


def paper_module() -> AfdModule:
    config = single_tap_config("paper", channels=12, stride=2, activation="relu")
    return AfdModule(config).eval()


def kernel(c_out: int, c_in: int, size: int) -> tuple[Tensor, Tensor]:
    weight = torch.randn(c_out, c_in, size, size, dtype=torch.float64)
    return weight, torch.randn(c_out, dtype=torch.float64)


def test_merge_1x1_3x3_is_the_composition() -> None:
    (w1, b1), (w3, b3) = kernel(4, 3, 1), kernel(5, 4, 3)
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    merged = conv2d(x, *fusion.merge_1x1_3x3(w1, b1, w3, b3))
    torch.testing.assert_close(merged, conv2d(conv2d(x, w1, b1), w3, b3), rtol=1e-10, atol=1e-10)


def test_merge_3x3_1x1_is_the_composition() -> None:
    (w3, b3), (w1, b1) = kernel(4, 3, 3), kernel(5, 4, 1)
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    merged = conv2d(x, *fusion.merge_3x3_1x1(w3, b3, w1, b1), padding=1)
    torch.testing.assert_close(
        merged, conv2d(conv2d(x, w3, b3, padding=1), w1, b1), rtol=1e-10, atol=1e-10
    )


def test_compose_1x1_is_the_composition_for_any_kernel_size() -> None:
    (k, b), (w1, b1) = kernel(6, 3, 8), kernel(5, 6, 1)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    composed = conv2d(x, *fusion.compose_1x1(w1, b1, k, b), stride=8)
    torch.testing.assert_close(
        composed, conv2d(conv2d(x, k, b, stride=8), w1, b1), rtol=1e-10, atol=1e-10
    )


def test_pad_1x1_puts_the_kernel_in_the_centre() -> None:
    weight, _ = kernel(4, 3, 1)
    padded = fusion.pad_1x1(weight)
    assert torch.equal(padded[:, :, 1, 1], weight[:, :, 0, 0])
    assert torch.count_nonzero(padded) == weight.numel()


def test_fusing_leaves_the_original_as_it_is() -> None:
    module = paper_module()
    before = contents(module)
    fused = fusion.fuse(module)
    with torch.no_grad():
        for p in fused.parameters():
            p.fill_(7.0)
    assert contents(module) == before
    assert sum(isinstance(m, RepConv) for m in module.modules()) == 6


def test_every_repconv_becomes_one_3x3_convolution() -> None:
    module = paper_module()
    fused = fusion.fuse(module)
    blocks = [name for name, m in module.named_modules() if isinstance(m, RepConv)]
    for name in blocks:
        conv = fused.get_submodule(name)
        assert isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3), name
    assert not any(m.training for m in fused.modules())


def test_fusing_twice_changes_nothing() -> None:
    once = fusion.fuse(paper_module())
    twice = fusion.fuse(once)
    assert contents(twice) == contents(once)
    assert not any(isinstance(m, RepConv) for m in twice.modules())
    features, image = torch.randn(1, 12, 16, 16), torch.rand(1, 3, 32, 32) * 255
    with torch.no_grad():
        assert torch.equal(twice(features, image), once(features, image))


def test_training_mode_is_refused_even_deep_inside() -> None:
    module = paper_module()
    module.fe_net.inc.train()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="training mode"):
        fusion.fuse(module)


def test_a_repconv_at_the_top_is_fused_too() -> None:
    block: nn.Module = RepConv(3, 4).eval()
    assert isinstance(fusion.fuse(block), nn.Conv2d)


def test_repvgg_is_reparameterised(randomize: Callable[[nn.Module], None]) -> None:
    model: nn.Module = timm.create_model("repvgg_a0", num_classes=5).eval()
    randomize(model)
    before = contents(model)
    fused = fusion.fuse(model)
    assert contents(model) == before
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, actual = model(x), fused(x)
    assert expected.std() > 1e-3
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert contents(fusion.fuse(fused)) == contents(fused)
