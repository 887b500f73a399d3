"""What a measurement of speed depends on besides the network."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> list[object]:
    """Describe this machine: processor, cores, and the libraries that run networks."""
    return [
        platform.machine(),
        _processor(),
        os.cpu_count(),
        library_version("torch"),
        library_version("openvino"),
    ]


def library_version(package: str) -> str:
    """Return the version of an installed package, or "" if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
