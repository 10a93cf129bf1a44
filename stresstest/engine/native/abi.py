"""The kernel's structures as ctypes has them: what `kernel.cpp` and `update.h` declare, field by field."""

from __future__ import annotations

import ctypes

# Parts of a block and banks of the ends, in the order of `Part` and `End`: the names that a layout may have for them.
PARTS = (
    ("weight",),
    ("bias",),
    ("mlp.pre.gain",),
    ("mlp.pre.bias",),
    ("mlp.out.gain", "mlp.inner.gain"),  # one place in an MLP
    ("mlp.out.bias", "mlp.inner.bias"),
    ("mlp.post.gain",),
    ("mlp.post.bias",),
    ("mlp.skip",),
    ("gate", "mlp.gate"),
)
OUT_GAIN, POST_GAIN = 4, 6  # in PARTS
ENDS = (
    "input.weight",
    "input.bias",
    "embedding.norm.gain",
    "embedding.norm.bias",
    "final.norm.gain",
    "final.norm.bias",
    "output.weight",
    "output.bias",
)
NORM_NUMBERS = {"none": 0, "layer-norm": 1, "rms-norm": 2}
_KINDS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "gi-adam", "radam", "lion")
KINDS = {name: number for number, name in enumerate(_KINDS, start=2)} | {"adamw": 2 + _KINDS.index("adam")}

_INT, _REAL, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class BankTable(ctypes.Structure):
    """Bank."""

    _fields_ = (("decays", _REAL), ("lr", _REAL), ("eps", _REAL))


class ModelTable(ctypes.Structure):
    """Model."""

    _fields_ = (
        ("depth", _INT),
        ("width", _INT),
        ("inputs", _INT),
        ("classes", _INT),
        ("norm", _INT),
        ("gate_size", _INT),
        ("multiplier", _REAL),
        ("ends", _POINTER),
        ("places", _POINTER),
        ("constants", _POINTER),
        ("banks", ctypes.POINTER(BankTable)),
        ("num_out", _INT),
        ("num_post", _INT),
    )


class RowTable(ctypes.Structure):
    """Rows."""

    _fields_ = (
        *((name, _POINTER) for name in ("theta", "grad", "first", "second")),
        *((f"{name}_stride", _INT) for name in ("theta", "grad", "first", "second")),
    )


class BatchTable(ctypes.Structure):
    """Batch."""

    _fields_ = (
        ("replicas", _INT),
        ("size", _INT),
        ("inputs", _POINTER),
        ("targets", _POINTER),
        ("shares", _POINTER),
        ("smoothing", _REAL),
    )


class UpdateTable(ctypes.Structure):
    """Update."""

    _fields_ = (
        ("kind", _INT),
        ("decoupled", _INT),
        ("first", _REAL),
        ("second", _REAL),
        ("eps", _REAL),
        ("weight_decay", _REAL),
        ("rows", _POINTER),
    )
