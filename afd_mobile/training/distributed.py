"""One process a GPU or a host, started by `torchrun`; alone without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from afd_mobile.common.errors import UsageError

T = TypeVar("T")


@contextmanager
def ranks(device: torch.device) -> Iterator[None]:
    """Joins the process group that `torchrun` prepared; nothing without it."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what gathered objects travel through
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over all ranks; without gradient."""
    if world() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world()


def average_gradients(module: nn.Module) -> None:
    """Every parameter's gradient becomes its mean over all ranks.

    They travel in one tensor, in the parameters' order. Sums over three ranks and more are rounded
    by where a number lies in it; DistributedDataParallel changes that after its first iteration,
    so a resumed training would end otherwise than one that went on.
    """
    if world() == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    means = mean_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = means.split_with_sizes([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view(gradient.shape))


def gather(value: T) -> list[T]:
    """Every rank's `value`, in the order of ranks, on every rank."""
    if world() == 1:
        return [value]
    values: list[T] = [value] * world()
    dist.all_gather_object(values, value)
    return values


def device_of(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> this rank's device.

    Raises:
        UsageError: no GPU where one is asked for.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda, but PyTorch sees no GPU; use --device cpu")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
