"""What makes two results the same or not comparable: keys of settings and environment."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def cell_key(settings: Mapping[str, Any]) -> str:
    """Content address of a cell: a hash of all resolved settings, not only the unusual ones."""
    return key_of(written(settings))


def written(settings: Mapping[str, Any]) -> dict[str, str]:
    """Each setting as it stands in the text of a key: cells that share most of theirs write these once."""
    return {name: f"{_JSON.encode(name)}:{_JSON.encode(value)}" for name, value in settings.items()}


def key_of(texts: Mapping[str, str]) -> str:
    """The key of settings that are written: a hash of their JSON, the names in order."""
    text = "{" + ",".join([texts[name] for name in sorted(texts)]) + "}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def environment(device: str, dtype: str) -> dict[str, Any]:
    """Everything a trace depends on beside the settings; `key` is what must agree to compare."""
    torch_version = version("torch")
    facts = {
        "torch": torch_version,
        "numpy": version("numpy"),
        "stresstest": _own_version(),
        "python": platform.python_version(),
        "os": platform.system(),
        "machine": platform.machine(),
        "device": device.split(":")[0],
        "device_name": _device_name(device),
        "dtype": dtype,
    }
    minor = ".".join(torch_version.split(".")[:2])
    parts = [f"torch{minor}", facts["device"], facts["device_name"], facts["machine"], dtype, facts["os"]]
    return {**facts, "key": "/".join(parts)}


def _own_version() -> str:
    try:
        return version("train-stresstest")
    except PackageNotFoundError:  # shipped to a node with the job, not installed there
        return "unknown"


def _device_name(device: str) -> str:
    import torch

    if device != "cpu":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"{torch.cuda.get_device_name(device)} sm{capability}"
    return f"{_cpu_model()} {torch.backends.cpu.get_cpu_capability()}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
