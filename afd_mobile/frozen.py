"""A frozen classifier as a loss function: made fast to run backwards, and tapped at more depths."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.functional import conv2d


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
    network = cast(fx.GraphModule, fuse(copy.deepcopy(graph).eval()))
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and _is_strided_depthwise(module):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, _StridedDepthwise(module))
    network = network.to(device, fast_type(device)).requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    return network


def with_deeper_features(tail: fx.GraphModule, features: Tensor, largest: int) -> fx.GraphModule:
    """The tail returning (logits, *the last feature map at each resolution up to `largest`)."""
    shapes: dict[fx.Node, torch.Size] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor) and result.ndim == 4 and result.shape[-1] > 1:
                shapes[n] = result.shape
            return result

    with torch.no_grad():
        Recorder(tail).run(features)
    last_of_size = {shape[-1]: node for node, shape in shapes.items()}
    deeper = [n for size, n in last_of_size.items() if size <= largest]
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    logits = graph.graph_copy(tail.graph, copies)
    graph.output((logits, *(copies[n] for n in deeper)))
    return fx.GraphModule(tail, graph)


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
        and conv.padding == (kernel // 2, kernel // 2)
        and conv.padding_mode == "zeros"
        and conv.bias is not None
    )


class _StridedDepthwise(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _StridedDepthwiseFunction.apply(x, self.weight, self.bias)
        return result


class _StridedDepthwiseFunction(torch.autograd.Function):
    """Stride 2, "same" padding; gradient with respect to the input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.input_size = x.shape[-2:]
        return conv2d(x, weight, bias, 2, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        stretched = torch.zeros(
            (*gradient.shape[:2], *ctx.input_size), dtype=gradient.dtype, device=gradient.device
        ).contiguous(memory_format=torch.channels_last)
        stretched[..., ::2, ::2] = gradient
        padding = weight.shape[-1] // 2
        return conv2d(stretched, weight.flip(2, 3), None, 1, padding, 1, len(weight)), None, None
