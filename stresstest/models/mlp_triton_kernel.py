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
def _normed(x, gain_at, bias_at, row, columns, inside, width, norm: tl.constexpr):
    """gain * unit(x) + bias, or x in a layer that has no norm here."""
    y = x
    if row >= 0:
        units, _inverse = _units(x, inside, width, norm)
        y = units * tl.load(gain_at + row * width + columns, mask=columns < width, other=0.0)[None, :]
        if norm == 1:
            y += tl.load(bias_at + row * width + columns, mask=columns < width, other=0.0)[None, :]
    return y


@triton.jit
def _normed_back(d, x, gain_at, row, sums_at, columns, inside, present, width, norm: tl.constexpr):
    """The gradient of x, given that of what `_normed` made of it; leaves those of gain and bias."""
    if row >= 0:
        units, inverse = _units(x, inside, width, norm)
        _sum_over_rows(sums_at, d * units, present, columns, width)
        if norm == 1:
            _sum_over_rows(sums_at + width, d, present, columns, width)
        gain = tl.load(gain_at + row * width + columns, mask=columns < width, other=0.0)
        d = _units_back(d * gain[None, :], units, inverse, inside, width, norm)
    return d


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


@triton.jit
def _tile(batch, width, K: tl.constexpr, D: tl.constexpr):
    """The replica of a program, its columns and where its rows begin, and which of both there are."""
    replica = tl.program_id(0).to(tl.int64)
    columns, rows = tl.arange(0, D), tl.program_id(1) * K + tl.arange(0, K)
    lines = replica * batch * width + rows * width
    return replica, columns, lines, (columns < width)[None, :], (rows < batch)[:, None]


@triton.jit
def _product(
    left, left_at, matrix_at, lines, columns, inside, present, width,
    turned: tl.constexpr, K: tl.constexpr, D: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """left @ matrix, or by its transpose where turned: at once, or by slices of `left`, which is stored already."""
    if turned:
        down, across = 1, width
    else:
        down, across = width, 1
    if SLICE == D:
        square = inside & (columns < width)[:, None]
        right = tl.load(matrix_at + columns[:, None] * down + columns[None, :] * across, mask=square, other=0.0)
        product = tl.dot(left, right, input_precision="ieee")
    else:
        tl.debug_barrier()  # what the program's other threads have stored is read back
        product = tl.zeros((K, D), tl.float32)
        for start in range(0, width, SLICE):
            part = start + tl.arange(0, SLICE)
            there = (part < width)[None, :] & present
            some = tl.load(left_at + lines[:, None] + part[None, :], mask=there, other=0.0)
            cells = part[:, None] * down + columns[None, :] * across
            right = tl.load(matrix_at + cells, mask=inside & (part < width)[:, None], other=0.0)
            product = tl.dot(some, right, product, input_precision="ieee")
    return product


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
    replica, columns, lines, inside, present = _tile(batch, width, K, D)
    both, tile = inside & present, lines[:, None] + columns[None, :]
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
            u = _normed(x, pre_gain_at, pre_bias_at, tl.load(rows_at), columns, inside, width, NORM)
            tl.store(u_at + tile, u, mask=both)
        read_at = u_at if PRE else inputs_at
        h = _product(u, read_at, weight_at, lines, columns, inside, present, width, True, K, D, SLICE)
        bias = tl.load(bias_at + columns, mask=columns < width, other=0.0)
        h = h * tl.load(constants_at + 2) + bias[None, :]
        h = tl.where(inside, tl.where(h <= 0.0, 0.0, h), 0.0)  # NaN stays
        tl.store(h_at + tile, h, mask=both)
        if OUT:
            h = _normed(h, out_gain_at, out_bias_at, tl.load(rows_at + 1), columns, inside, width, NORM)
        skip = _skip(skip_at, tl.load(rows_at + 3), tl.load(constants_at), columns, width, SKIP)
        gate = _gate(gate_at, tl.load(rows_at + 4), tl.load(constants_at + 1), columns, width, GATE)
        x = skip * x + gate * h
        if POST:
            x = _normed(x, post_gain_at, post_bias_at, tl.load(rows_at + 2), columns, inside, width, NORM)
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
    replica, columns, lines, inside, present = _tile(batch, width, K, D)
    both, tile = inside & present, lines[:, None] + columns[None, :]
    layer = num_replicas * batch * width
    last = (num_layers - 1).to(tl.int64)
    weight_at += replica * tl.load(strides_at) + last * width * width
    pre_gain_at += replica * tl.load(strides_at + 1)
    out_gain_at += replica * tl.load(strides_at + 2)
    out_bias_at += replica * tl.load(strides_at + 3)
    post_gain_at += replica * tl.load(strides_at + 4)
    skip_at += replica * tl.load(strides_at + 5)
    gate_at += replica * tl.load(strides_at + 6)
    inputs_at += last * layer
    h_at += last * layer
    rows_at += last * 5
    constants_at += last * 3
    sums_at += (((tl.program_id(1).to(tl.int64) * num_replicas + replica) + 1) * num_layers - 1) * SUMS * width
    d = tl.load(stream_at + tile, mask=both, other=0.0)
    for _ in range(num_layers):
        x = tl.load(inputs_at + tile, mask=both, other=0.0)
        h = tl.load(h_at + tile, mask=both, other=0.0)
        o, out_row = h, tl.load(rows_at + 1)
        if OUT:
            o = _normed(h, out_gain_at, out_bias_at, out_row, columns, inside, width, NORM)
        skip = _skip(skip_at, tl.load(rows_at + 3), tl.load(constants_at), columns, width, SKIP)
        gate = _gate(gate_at, tl.load(rows_at + 4), tl.load(constants_at + 1), columns, width, GATE)
        if POST:
            y, sum_at = skip * x + gate * o, sums_at + POST_SUM * width
            row = tl.load(rows_at + 2)
            d = _normed_back(d, y, post_gain_at, row, sum_at, columns, inside, present, width, NORM)
        if SKIP:
            _sum_over_rows(sums_at + SKIP_SUM * width, d * x, present, columns, width)
        if GATE != 0:
            _sum_over_rows(sums_at + GATE_SUM * width, d * o, present, columns, width)
        g = d * gate
        if OUT:
            sum_at = sums_at + OUT_SUM * width
            g = _normed_back(g, h, out_gain_at, out_row, sum_at, columns, inside, present, width, NORM)
        g = tl.where((h != 0.0) & both, g, 0.0)  # where h is NaN the gradient passes, as autograd's
        _sum_over_rows(sums_at, g, present, columns, width)
        g = g * tl.load(constants_at + 2)
        tl.store(h_at + tile, g, mask=both)
        through = _product(g, h_at, weight_at, lines, columns, inside, present, width, False, K, D, SLICE)
        if PRE:
            row, sum_at = tl.load(rows_at), sums_at + PRE_SUM * width
            through = _normed_back(through, x, pre_gain_at, row, sum_at, columns, inside, present, width, NORM)
        d = tl.where(inside, through + skip * d, 0.0)
        inputs_at -= layer
        h_at -= layer
        weight_at -= width * width
        rows_at -= 5
        constants_at -= 3
        sums_at -= SUMS * width
    tl.store(stream_at + tile, d, mask=both)
