"""A frozen classifier as a loss function: made fast to run backwards, and tapped at more depths."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, fx, nn
from torch.nn.functional import conv2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

from afd_mobile.classifiers.places import node_outputs
from afd_mobile.network.fusion import fuse


def fast_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes with it, else float32.

    bfloat16 is exact enough for a loss (float32 and bfloat16 runs end alike) and a third faster.
    A processor that does not have it imitates it, which is slower than float32.
    """
    if device.type != "cpu":
        return torch.bfloat16
    able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if able else torch.float32


def frozen(graph: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """A copy without gradients of its own: BatchNorm folded, `fast_type`, channels last."""
    network = fuse(copy.deepcopy(graph).eval())
    _fold_normalization(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and _is_strided_depthwise(module):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, _StridedDepthwise(module))
    network = network.to(device, fast_type(device)).requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    return network


def with_deeper_features(tail: fx.GraphModule, features: Tensor, largest: int) -> fx.GraphModule:
    """The tail returning (logits, *the last feature map at each resolution up to `largest`)."""
    maps = {n: x for n, x in node_outputs(tail, features).items() if x.ndim == 4}
    last_of_size = {x.shape[-1]: node for node, x in maps.items() if x.shape[-1] > 1}
    deeper = [n for size, n in last_of_size.items() if size <= largest]
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    logits = graph.graph_copy(tail.graph, copies)
    graph.output((logits, *(copies[n] for n in deeper)))
    return fx.GraphModule(tail, graph)


def _fold_normalization(network: fx.GraphModule) -> None:
    """Makes BatchNorm a part of the convolution before it, in place.

    Of timm's, the activation is left. Nothing is traced again: timm's layers cannot be traced into.
    """
    calls = Counter(node.target for node in network.graph.nodes)
    for node in network.graph.nodes:
        before = node.args[0] if node.op == "call_module" else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = (network.get_submodule(str(n.target)) for n in (before, node))
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if norm.running_mean is not None and calls[before.target] == calls[node.target] == 1:
            network.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            network.set_submodule(str(node.target), getattr(norm, "act", nn.Identity()))


# --- strided depthwise convolutions -------------------------------------------------------------
# oneDNN has no fast kernel for their gradient in bfloat16: the four of MobileNetV2 took 70 % of
# its backward pass. As a depthwise convolution of the stretched gradient they take 5 %.


def _is_strided_depthwise(conv: nn.Conv2d) -> bool:
    kernel = conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and conv.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and (conv.padding == (kernel // 2, kernel // 2) or isinstance(conv, Conv2dSame))
        and conv.padding_mode == "zeros"
        and conv.bias is not None
    )


class _StridedDepthwise(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.padding = conv.weight, conv.bias, conv.padding
        self.same = isinstance(conv, Conv2dSame)

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            x = pad_same(x, self.weight.shape[-2:], (2, 2))
        result: Tensor = _StridedDepthwiseFunction.apply(x, self.weight, self.bias, self.padding[0])
        return result


class _StridedDepthwiseFunction(torch.autograd.Function):
    """Stride 2; gradient with respect to the input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.input_size, ctx.padding = x.shape[-2:], padding
        return conv2d(x, weight, bias, 2, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        margin = weight.shape[-1] - 1
        height, width = (size + margin for size in ctx.input_size)
        stretched = gradient.new_zeros(*gradient.shape[:2], height, width)
        stretched = stretched.contiguous(memory_format=torch.channels_last)
        first = margin - ctx.padding
        rows, columns = (slice(first, first + 2 * n, 2) for n in gradient.shape[-2:])
        stretched[..., rows, columns] = gradient
        return conv2d(stretched, weight.flip(2, 3), None, 1, 0, 1, len(weight)), None, None, None
