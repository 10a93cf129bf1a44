// LayerNorm and RMSNorm of rows, forward and back; a row's statistics are kept, its unit part is computed again.
#pragma once
#include "vectors.h"

enum Norm : int64_t { NO_NORM, LAYER_NORM, RMS_NORM };
constexpr float LAYER_NORM_EPS = 1e-5f;
constexpr float RMS_NORM_EPS = 1e-6f;

struct Shape {  // of the stream: batch rows of width numbers, ld apart
    int64_t batch, width, ld;
    int64_t size() const { return batch * ld; }
};

static inline vf lanes_below(int n) {  // 1 in the first n lanes
    vf v = {};
    for (int j = 0; j < n && j < VL; ++j) v[j] = 1.0f;
    return v;
}

// A row's vectors, f(place, lanes that count); the last may count in part.
template <class F>
static inline void over_row(const Shape& s, vf last, F f) {
    const int64_t whole = s.width / VL * VL;
    for (int64_t i = 0; i < whole; i += VL) f(i, splat(1.0f));
    if (whole < s.width) f(whole, last);
}

// Where torch's LayerNorm is NaN though a variance of infinity would make 0 of the row: it multiplies the square of the
// mean of what it sums up first by 0 (RowwiseMoments). That is every eighth number, or the whole of a short row.
static bool overflows_in_torch(int64_t width, const float* x, float mean) {
    if (width > 8 && width % 8) return false;
    float first = width < 8 ? mean : 0.0f;
    for (int64_t i = 0; width >= 8 && i < width; i += 8) first += x[i] / static_cast<float>(width / 8);
    return !std::isfinite(first * first);
}

static inline void norm_statistics(int64_t norm, const Shape& s, vf last, const float* x, float* mean, float* inverse) {
    const float size = static_cast<float>(s.width);
    vf total = {}, squares = {};
    *mean = 0.0f;
    if (norm == LAYER_NORM) {
        over_row(s, last, [&](int64_t i, vf) { total += load(x + i); });
        *mean = sum(total) / size;
    }
    over_row(s, last, [&](int64_t i, vf counts) {
        const vf off = (load(x + i) - *mean) * counts;
        squares = fma(off, off, squares);
    });
    const float eps = norm == LAYER_NORM ? LAYER_NORM_EPS : RMS_NORM_EPS;
    const float square = sum(squares) / size;
    *inverse = 1.0f / std::sqrt(square + eps);
    const bool overflows = !std::isfinite(square) || !std::isfinite(*mean * *mean);
    if (norm == LAYER_NORM && overflows && overflows_in_torch(s.width, x, *mean)) *inverse = NAN;
}

// y = gain * unit(x) + bias (none in RMSNorm), from kept statistics [mean, 1 / std] x batch.
static void norm_apply(
    const Shape& s, const float* x, const float* statistics, const float* gain, const float* bias, float* y
) {
    const vf last = lanes_below(static_cast<int>(s.width % VL));
    for (int64_t b = 0; b < s.batch; ++b) {
        const float mean = statistics[b], inverse = statistics[s.batch + b];
        over_row(s, last, [&](int64_t i, vf) {
            const vf unit = (load(x + b * s.ld + i) - mean) * inverse;
            store(y + b * s.ld + i, fma(unit, load(gain + i), bias ? load(bias + i) : vf{}));
        });
    }
}

static void norm_forward(
    int64_t norm, const Shape& s, const float* x, float* statistics, const float* gain, const float* bias, float* y
) {
    const vf last = lanes_below(static_cast<int>(s.width % VL));
    for (int64_t b = 0; b < s.batch; ++b)
        norm_statistics(norm, s, last, x + b * s.ld, statistics + b, statistics + s.batch + b);
    norm_apply(s, x, statistics, gain, bias, y);
}

// d, the gradient of the output, becomes that of the input x; those of gain and bias are added to. `by_autograd`: NaN
// where it is so in torch's own backward passes, which multiply the sum of gain * d * x by powers of 1 / std.
static void norm_backward(
    int64_t norm, const Shape& s, const float* x, const float* statistics, const float* gain, float* d, float* d_gain,
    float* d_bias, bool by_autograd
) {
    const vf last = lanes_below(static_cast<int>(s.width % VL));
    const float size = static_cast<float>(s.width);
    for (int64_t b = 0; b < s.batch; ++b) {
        const float mean = statistics[b], inverse = statistics[s.batch + b];
        const float* row = x + b * s.ld;
        float* d_row = d + b * s.ld;
        vf along = {}, total = {}, raw = {};
        over_row(s, last, [&](int64_t i, vf) {
            const vf unit = (load(row + i) - mean) * inverse, d_y = load(d_row + i), d_unit = d_y * load(gain + i);
            if (by_autograd) raw = fma(d_unit, load(row + i), raw);
            store(d_gain + i, fma(d_y, unit, load(d_gain + i)));
            if (d_bias) store(d_bias + i, load(d_bias + i) + d_y);
            along = fma(d_unit, unit, along);
            total += d_unit;
        });
        const bool overflows = by_autograd && !std::isfinite(sum(raw));
        const float share = overflows ? NAN : sum(along) / size;
        const float shift = norm == LAYER_NORM ? sum(total) / size : 0.0f;
        over_row(s, last, [&](int64_t i, vf counts) {
            const vf unit = (load(row + i) - mean) * inverse, d_unit = load(d_row + i) * load(gain + i);
            store(d_row + i, ((d_unit - unit * share) - shift) * inverse * counts);
        });
    }
}
