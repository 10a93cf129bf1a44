"""The two passes over all blocks of a deep residual MLP, in Triton: one program has rows of one replica's batch.

Rows of a batch meet in the gradients of the parameters alone, so that a program walks all layers without waiting for
another: its stream stays on chip, and each layer's weights are read once forward and once back. What meets is left as
sums over the program's rows, and as the two factors of each matrix's gradient, for torch to put together.
`norm` is 0 where there is none, 1 for layer-norm, 2 for rms-norm; a gate 0 for constants, 1 for a scalar a layer, 2 for
a vector. A row of a table says where a layer's pre-, out- and post-norm, skip and gate lie in their banks; -1: nowhere.
The equation is that of `block.run_blocks`. Dimension key: N layers, R replicas, B batch, D width, K a program's rows.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _units(x, inside, width, norm: tl.constexpr):
    """The norm without gain and bias, and what its backward pass needs: both as `norms.unit_forward`."""
    if norm == 1:
        mean = tl.sum(tl.where(inside, x, 0.0), 1)[:, None] / width
        x = tl.where(inside, x - mean, 0.0)
        inverse = 1.0 / tl.sqrt(tl.sum(x * x, 1)[:, None] / width + 1e-5)
    else:
        x = tl.where(inside, x, 0.0)
        inverse = 1.0 / tl.sqrt(tl.sum(x * x, 1)[:, None] / width + 1e-6)
    return x * inverse, inverse


@triton.jit
def _units_back(d, units, inverse, inside, width, norm: tl.constexpr):
    """The gradient of a norm's input, given that of its unit part."""
    d = tl.where(inside, d, 0.0)
    d -= units * (tl.sum(d * units, 1)[:, None] / width)
    if norm == 1:
        d -= tl.sum(d, 1)[:, None] / width
    return tl.where(inside, d * inverse, 0.0)


@triton.jit
def _affine(units, gain_at, bias_at, row, columns, width, norm: tl.constexpr):
    gain = tl.load(gain_at + row * width + columns, mask=columns < width, other=0.0)
    y = units * gain[None, :]
    if norm == 1:
        y += tl.load(bias_at + row * width + columns, mask=columns < width, other=0.0)[None, :]
    return y


@triton.jit
def _gate(gate_at, row, constant, columns, width, kind: tl.constexpr):
    """A layer's gate, [1, D]."""
    if kind == 1:
        gate = tl.load(gate_at + row) + tl.zeros_like(columns).to(tl.float32)
    elif kind == 2:
        gate = tl.load(gate_at + row * width + columns, mask=columns < width, other=0.0)
    else:
        gate = constant + tl.zeros_like(columns).to(tl.float32)
    return gate[None, :]


@triton.jit
def _skip(skip_at, row, constant, columns, width, learned: tl.constexpr):
    """A layer's factor of the skip connection, [1, D]."""
    if learned:
        skip = tl.load(skip_at + row * width + columns, mask=columns < width, other=0.0)
    else:
        skip = constant + tl.zeros_like(columns).to(tl.float32)
    return skip[None, :]


@triton.jit
def _sum_over_rows(at, values, present, columns, width):
    """Leave a program's part of a parameter's gradient, [D]."""
    tl.store(at + columns, tl.sum(tl.where(present, values, 0.0), 0), mask=columns < width)


@triton.jit(do_not_specialize=["num_layers", "num_replicas", "batch"])
def forward(
    stream_at,
    inputs_at,
    u_at,
    h_at,
    weight_at,
    bias_at,
    pre_gain_at,
    pre_bias_at,
    out_gain_at,
    out_bias_at,
    post_gain_at,
    post_bias_at,
    skip_at,
    gate_at,
    rows_at,
    constants_at,
    strides_at,
    num_layers,
    num_replicas,
    batch,
    width,
    NORM: tl.constexpr,
    PRE: tl.constexpr,
    OUT: tl.constexpr,
    POST: tl.constexpr,
    SKIP: tl.constexpr,
    GATE: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    SLICE: tl.constexpr,
):
    """All layers of the stream [R, B, D], which is written over; keeps each layer's input, the norm of it, and h."""
    replica = tl.program_id(0).to(tl.int64)
    columns, rows = tl.arange(0, D), tl.program_id(1) * K + tl.arange(0, K)
    inside, present = (columns < width)[None, :], (rows < batch)[:, None]
    both = inside & present
    one = rows[:, None] * width + columns[None, :]
    tile = replica * batch * width + one
    layer = num_replicas * batch * width
    weight_at += replica * tl.load(strides_at)
    bias_at += replica * tl.load(strides_at + 1)
    pre_gain_at += replica * tl.load(strides_at + 2)
    pre_bias_at += replica * tl.load(strides_at + 3)
    out_gain_at += replica * tl.load(strides_at + 4)
    out_bias_at += replica * tl.load(strides_at + 5)
    post_gain_at += replica * tl.load(strides_at + 6)
    post_bias_at += replica * tl.load(strides_at + 7)
    skip_at += replica * tl.load(strides_at + 8)
    gate_at += replica * tl.load(strides_at + 9)
    x = tl.load(stream_at + tile, mask=both, other=0.0)
    for _ in range(num_layers):
        tl.store(inputs_at + tile, x, mask=both)
        u = x
        if PRE:
            row = tl.load(rows_at)
            if row >= 0:
                units, _inverse = _units(x, inside, width, NORM)
                u = _affine(units, pre_gain_at, pre_bias_at, row, columns, width, NORM)
            tl.store(u_at + tile, u, mask=both)
        h = tl.zeros((K, D), tl.float32)
        if SLICE == D:
            cell = columns[None, :] * width + columns[:, None]  # of the transposed matrix, [in, out]
            square = inside & (columns < width)[:, None]
            h = tl.dot(u, tl.load(weight_at + cell, mask=square, other=0.0), input_precision="ieee")
        else:
            tl.debug_barrier()  # what the program's other threads have stored is read back
            for start in range(0, width, SLICE):
                part = start + tl.arange(0, SLICE)
                there = (part < width)[None, :] & present
                where = replica * batch * width + rows[:, None] * width + part[None, :]
                left = tl.load((u_at if PRE else inputs_at) + where, mask=there, other=0.0)
                cell = columns[None, :] * width + part[:, None]
                right = tl.load(weight_at + cell, mask=inside & (part < width)[:, None], other=0.0)
                h = tl.dot(left, right, h, input_precision="ieee")
        bias = tl.load(bias_at + columns, mask=columns < width, other=0.0)
        h = h * tl.load(constants_at + 2) + bias[None, :]
        h = tl.where(inside, tl.where(h <= 0.0, 0.0, h), 0.0)  # NaN stays
        tl.store(h_at + tile, h, mask=both)
        if OUT:
            row = tl.load(rows_at + 1)
            if row >= 0:
                units, _inverse = _units(h, inside, width, NORM)
                h = _affine(units, out_gain_at, out_bias_at, row, columns, width, NORM)
        skip = _skip(skip_at, tl.load(rows_at + 3), tl.load(constants_at), columns, width, SKIP)
        gate = _gate(gate_at, tl.load(rows_at + 4), tl.load(constants_at + 1), columns, width, GATE)
        x = skip * x + gate * h
        if POST:
            row = tl.load(rows_at + 2)
            if row >= 0:
                units, _inverse = _units(x, inside, width, NORM)
                x = _affine(units, post_gain_at, post_bias_at, row, columns, width, NORM)
        x = tl.where(inside, x, 0.0)
        inputs_at += layer
        if PRE:
            u_at += layer
        h_at += layer
        weight_at += width * width
        bias_at += width
        rows_at += 5
        constants_at += 3
    tl.store(stream_at + tile, x, mask=both)


@triton.jit(do_not_specialize=["num_layers", "num_replicas", "batch"])
def backward(
    stream_at,
    inputs_at,
    h_at,
    sums_at,
    weight_at,
    pre_gain_at,
    out_gain_at,
    out_bias_at,
    post_gain_at,
    post_bias_at,
    skip_at,
    gate_at,
    rows_at,
    constants_at,
    strides_at,
    num_layers,
    num_replicas,
    batch,
    width,
    NORM: tl.constexpr,
    PRE: tl.constexpr,
    OUT: tl.constexpr,
    POST: tl.constexpr,
    SKIP: tl.constexpr,
    GATE: tl.constexpr,
    SUMS: tl.constexpr,
    PRE_SUM: tl.constexpr,
    OUT_SUM: tl.constexpr,
    POST_SUM: tl.constexpr,
    SKIP_SUM: tl.constexpr,
    GATE_SUM: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    SLICE: tl.constexpr,
):
    """All layers back from the gradient after the last one, [R, B, D], which is written over.

    h is written over by the gradient of W u, and `sums` [programs of a replica, R, N, SUMS, D] with each vector's.
    """
    replica = tl.program_id(0).to(tl.int64)
    columns, rows = tl.arange(0, D), tl.program_id(1) * K + tl.arange(0, K)
    inside, present = (columns < width)[None, :], (rows < batch)[:, None]
    both = inside & present
    one = rows[:, None] * width + columns[None, :]
    tile = replica * batch * width + one
    layer = num_replicas * batch * width
    last = (num_layers - 1).to(tl.int64)
    weight_at += replica * tl.load(strides_at)
    weight_at += last * width * width
    pre_gain_at += replica * tl.load(strides_at + 1)
    out_gain_at += replica * tl.load(strides_at + 2)
    out_bias_at += replica * tl.load(strides_at + 3)
    post_gain_at += replica * tl.load(strides_at + 4)
    post_bias_at += replica * tl.load(strides_at + 5)
    skip_at += replica * tl.load(strides_at + 6)
    gate_at += replica * tl.load(strides_at + 7)
    inputs_at += last * layer
    h_at += last * layer
    rows_at += last * 5
    constants_at += last * 3
    sums_at += (((tl.program_id(1).to(tl.int64) * num_replicas + replica) + 1) * num_layers - 1) * SUMS * width
    d = tl.load(stream_at + tile, mask=both, other=0.0)
    for _ in range(num_layers):
        x = tl.load(inputs_at + tile, mask=both, other=0.0)
        h = tl.load(h_at + tile, mask=both, other=0.0)
        o = h
        out_row, post_row = tl.load(rows_at + 1), tl.load(rows_at + 2)
        if OUT:
            out_units, out_inverse = _units(h, inside, width, NORM)
            if out_row >= 0:
                o = _affine(out_units, out_gain_at, out_bias_at, out_row, columns, width, NORM)
        skip = _skip(skip_at, tl.load(rows_at + 3), tl.load(constants_at), columns, width, SKIP)
        gate = _gate(gate_at, tl.load(rows_at + 4), tl.load(constants_at + 1), columns, width, GATE)
        if POST:
            if post_row >= 0:
                units, inverse = _units(skip * x + gate * o, inside, width, NORM)
                _sum_over_rows(sums_at + POST_SUM * width, d * units, present, columns, width)
                if NORM == 1:
                    _sum_over_rows(sums_at + (POST_SUM + 1) * width, d, present, columns, width)
                gain = tl.load(post_gain_at + post_row * width + columns, mask=columns < width, other=0.0)
                d = _units_back(d * gain[None, :], units, inverse, inside, width, NORM)
        if SKIP:
            _sum_over_rows(sums_at + SKIP_SUM * width, d * x, present, columns, width)
        if GATE != 0:
            _sum_over_rows(sums_at + GATE_SUM * width, d * o, present, columns, width)
        g = d * gate
        if OUT:
            if out_row >= 0:
                _sum_over_rows(sums_at + OUT_SUM * width, g * out_units, present, columns, width)
                if NORM == 1:
                    _sum_over_rows(sums_at + (OUT_SUM + 1) * width, g, present, columns, width)
                gain = tl.load(out_gain_at + out_row * width + columns, mask=columns < width, other=0.0)
                g = _units_back(g * gain[None, :], out_units, out_inverse, inside, width, NORM)
        g = tl.where((h != 0.0) & both, g, 0.0)  # where h is NaN the gradient passes, as autograd's
        _sum_over_rows(sums_at, g, present, columns, width)
        g = g * tl.load(constants_at + 2)
        tl.store(h_at + tile, g, mask=both)
        through = tl.zeros((K, D), tl.float32)
        if SLICE == D:
            cell = columns[:, None] * width + columns[None, :]  # [out, in]
            square = inside & (columns < width)[:, None]
            through = tl.dot(g, tl.load(weight_at + cell, mask=square, other=0.0), input_precision="ieee")
        else:
            tl.debug_barrier()  # what the program's other threads have stored is read back
            for start in range(0, width, SLICE):
                part = start + tl.arange(0, SLICE)
                there = (part < width)[None, :] & present
                where = replica * batch * width + rows[:, None] * width + part[None, :]
                left = tl.load(h_at + where, mask=there, other=0.0)
                cell = part[:, None] * width + columns[None, :]
                right = tl.load(weight_at + cell, mask=inside & (part < width)[:, None], other=0.0)
                through = tl.dot(left, right, through, input_precision="ieee")
        if PRE:
            row = tl.load(rows_at)
            if row >= 0:
                units, inverse = _units(x, inside, width, NORM)
                _sum_over_rows(sums_at + PRE_SUM * width, through * units, present, columns, width)
                if NORM == 1:
                    _sum_over_rows(sums_at + (PRE_SUM + 1) * width, through, present, columns, width)
                gain = tl.load(pre_gain_at + row * width + columns, mask=columns < width, other=0.0)
                through = _units_back(through * gain[None, :], units, inverse, inside, width, NORM)
        d = tl.where(inside, through + skip * d, 0.0)
        inputs_at -= layer
        h_at -= layer
        weight_at -= width * width
        rows_at -= 5
        constants_at -= 3
        sums_at -= SUMS * width
    tl.store(stream_at + tile, d, mask=both)
