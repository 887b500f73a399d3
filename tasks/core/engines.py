"""Ways to run one prefix on this machine, each the same function of the pixels.

On a CPU: "eager", "channels_last" (eager, with the channels innermost), "compiled" (torch.compile, weights
frozen into the program) and "openvino" (Intel's runtime, an extra; it knows other CPUs as well). On a
GPU: "cuda". Which one is taken is decided in `tasks.core.choice`.
"""

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes, digest_value
from tasks.core.files import replacing, write_text
from tasks.core.media import ImageSpec

MODEL, SEAL = "model.xml", "seal"
FILES = (MODEL, "model.bin")
Forward = Callable[[np.ndarray], list[np.ndarray]]
"""(batch, 3, crop, crop) uint8 -> one (batch, ...) float32 for each tap."""

CPU_ENGINES = ("channels_last", "eager", "openvino", "compiled")
"""In the order in which they are tried."""

CPU_BATCH = {"eager": 16, "channels_last": 16, "compiled": 16, "openvino": 8}
"""Measured on 2 cores: OpenVINO is fastest while a batch's activations fit the processor's cache."""


@dataclass
class Engine:
    """A prefix made ready to run.

    Attributes:
        name: of the way it runs.
        batch: how many samples go in at once; always as many, since another number may change the bits.
        forward: the function.
        device: "cpu", or the GPU's name with the number format of its products.
    """

    name: str
    batch: int
    forward: Forward
    device: str = "cpu"


class Unavailable(Exception):  # noqa: N818 - not an error: another engine is taken
    """An engine cannot run here; the text says why."""


class PixelsToTaps(nn.Module):
    """Bytes to rows: the preprocessing's arithmetic, then the prefix.

    Args:
        prefix: in eval mode.
        spec: its mean and std.
        channels_last: whether activations are laid out with the channels innermost.
    """

    def __init__(self, prefix: Prefix, spec: ImageSpec, *, channels_last: bool) -> None:
        super().__init__()
        self.prefix = prefix
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run (B, 3, crop, crop) uint8; returns one (B, ...) for each tap."""
        x = (x.float() - self.mean) / self.std  # type: ignore[operator]
        return tuple(self.prefix(x.contiguous(memory_format=self.layout)))


def build(name: str, prefix: Prefix, spec: ImageSpec, cache: Path) -> Engine:
    """Make a prefix ready to run in one of the ways for a CPU.

    Args:
        name: one of `CPU_ENGINES`.
        prefix: frozen, in eval mode.
        spec: the backbone's preprocessing.
        cache: a folder of this prefix's own, where a converted network may be kept.

    Raises:
        Unavailable: if that way cannot be had here.
    """
    if name == "openvino":
        return Engine(name, CPU_BATCH[name], _openvino(prefix, spec, CPU_BATCH[name], cache))
    if name == "compiled":
        return Engine(name, CPU_BATCH[name], _compiled(prefix, spec))
    module = PixelsToTaps(prefix, spec, channels_last=False).eval()
    if name == "channels_last":
        module = with_channels_last(prefix, spec, torch.device("cpu"))
    return Engine(name, CPU_BATCH[name], torch_forward(module, torch.device("cpu")))


def with_channels_last(prefix: Prefix, spec: ImageSpec, device: torch.device) -> PixelsToTaps:
    """Copy a prefix to a device, with the channels innermost.

    A copy, since `to` changes a module in place, and engines share the network's weights.
    """
    module = PixelsToTaps(deepcopy(prefix), spec, channels_last=True).eval()
    return module.to(device).to(memory_format=torch.channels_last)


def torch_forward(module: nn.Module, device: torch.device, half: torch.dtype | None = None) -> Forward:
    """Make a module a function of arrays.

    Args:
        module: bytes to rows, on the device.
        device: where it runs.
        half: the number format of its products on a GPU, float32 if not given.
    """

    def forward(x: np.ndarray) -> list[np.ndarray]:
        inputs = torch.from_numpy(x)
        if device.type == "cuda":
            inputs = inputs.pin_memory().to(device, non_blocking=True)
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
            return [out.float().cpu().contiguous().numpy() for out in module(inputs)]

    return forward


def _compiled(prefix: Prefix, spec: ImageSpec) -> Forward:
    if not prefix.traced:
        raise Unavailable("the network cannot be traced")
    if not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")):
        raise Unavailable("no C++ compiler")
    module = with_channels_last(prefix, spec, torch.device("cpu"))
    return torch_forward(torch.compile(module, options={"freezing": True}), torch.device("cpu"))  # type: ignore[arg-type]


def _openvino(prefix: Prefix, spec: ImageSpec, batch: int, cache: Path) -> Forward:
    if not prefix.traced:
        raise Unavailable("the network cannot be traced")
    _quiet_openvino()
    import openvino as ov

    model = _converted(prefix, spec, batch, cache / f"openvino-{batch}")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}  # bf16 is off by a percent
    compiled = ov.compile_model(model, "CPU", settings)
    return lambda x: list(compiled(x).to_tuple())


def _quiet_openvino() -> None:
    """Keep OpenVINO's telemetry out, which would send a word home with every conversion.

    Raises:
        Unavailable: if OpenVINO is not installed.
    """
    if find_spec("openvino") is None:
        raise Unavailable("openvino is not installed (pip install 'headstart[cpu]')")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its stub is taken instead


def _converted(prefix: Prefix, spec: ImageSpec, batch: int, kept: Path) -> Any:
    """Read the converted network, or convert it and keep it for the next run."""
    import openvino as ov

    if _is_whole(kept):
        return ov.Core().read_model(kept / MODEL)
    module = PixelsToTaps(prefix, spec, channels_last=False).eval()
    example = torch.zeros(batch, 3, spec.crop, spec.crop, dtype=torch.uint8)
    with warnings.catch_warnings():  # OpenVINO traces by torch.jit, which torch would like to see go
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=example, input=[tuple(example.shape)])
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(model, Path(folder, MODEL), compress_to_fp16=False)
        for name in FILES:
            with replacing(kept / name) as partial:
                shutil.copyfile(Path(folder, name), partial)
    write_text(kept / SEAL, _checksum(kept))  # last: what it seals is complete
    return model


def _is_whole(kept: Path) -> bool:
    try:
        return (kept / SEAL).read_text() == _checksum(kept)
    except OSError:
        return False


def _checksum(folder: Path) -> str:
    return digest_value([digest_bytes((folder / name).read_bytes()) for name in FILES])
