// Products of matrices. A matrix that is padded has rows of a whole number of vectors, with zeros behind its columns.
#pragma once
#include "vectors.h"

constexpr int ROWS = VL == 16 ? 8 : 4;  // of a tile, whose sums stay in registers
constexpr int COLUMNS = 2;              // vectors of a tile

// c[m, n] = bias[n] + sum over k of a(m, k) b[k, n]; a is stored by rows, or by columns where TURNED.
template <int M, int N, bool TURNED>
static inline void tile(
    const float* a, int64_t lda, const float* b, int64_t ldb, int64_t size_k, const float* bias, float* c, int64_t ldc
) {
    vf sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[m][n] = bias ? load(bias + n * VL) : vf{};
    for (int64_t k = 0; k < size_k; ++k) {
        vf row[N];
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) row[n] = load(b + k * ldb + n * VL);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const vf factor = splat(TURNED ? a[k * lda + m] : a[m * lda + k]);
#pragma GCC unroll 2
            for (int n = 0; n < N; ++n) sums[m][n] = fma(factor, row[n], sums[m][n]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) store(c + m * ldc + n * VL, sums[m][n]);
}

template <int M, bool TURNED>
static void rows_of_tiles(
    const float* a, int64_t lda, const float* b, int64_t ldb, int64_t size_k, const float* bias, float* c, int64_t ldc,
    int64_t size_n
) {
    int64_t n = 0;
    for (; n + COLUMNS * VL <= size_n; n += COLUMNS * VL)
        tile<M, COLUMNS, TURNED>(a, lda, b + n, ldb, size_k, bias ? bias + n : nullptr, c + n, ldc);
    for (; n < size_n; n += VL)
        tile<M, 1, TURNED>(a, lda, b + n, ldb, size_k, bias ? bias + n : nullptr, c + n, ldc);
}

// c [m, n] = bias + a b, with b and c padded, and n a whole number of vectors.
template <bool TURNED>
static void product(
    const float* a, int64_t lda, const float* b, int64_t ldb, int64_t size_k, const float* bias, float* c, int64_t ldc,
    int64_t size_m, int64_t size_n
) {
    int64_t m = 0;
    for (; m + ROWS <= size_m; m += ROWS)
        rows_of_tiles<ROWS, TURNED>(
            a + (TURNED ? m : m * lda), lda, b, ldb, size_k, bias, c + m * ldc, ldc, size_n
        );
    for (; m < size_m; ++m)
        rows_of_tiles<1, TURNED>(a + (TURNED ? m : m * lda), lda, b, ldb, size_k, bias, c + m * ldc, ldc, size_n);
}

// y[b, o] = bias[o] + sum over i of x[b, i] w[o, i], where both run along i: for a layer with many inputs.
template <int M, int N>
static void dots(
    const float* x, const float* w, const float* bias, float* y, int64_t ldy, int64_t size, int64_t whole
) {
    vf sums[M][N] = {};
    for (int64_t i = 0; i < size; i += VL) {
        vf left[M], right[N];
        for (int m = 0; m < M; ++m) left[m] = i < whole ? load(x + m * size + i) : load(x + m * size + i, size - i);
        for (int n = 0; n < N; ++n) right[n] = i < whole ? load(w + n * size + i) : load(w + n * size + i, size - i);
        for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n) sums[m][n] = fma(left[m], right[n], sums[m][n]);
    }
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) y[m * ldy + n] = sum(sums[m][n]) + bias[n];
}

template <int M>
static void rows_of_dots(
    const float* x, const float* w, const float* bias, float* y, int64_t ldy, int64_t size, int64_t outputs
) {
    const int64_t whole = size / VL * VL;
    int64_t o = 0;
    for (; o + 4 <= outputs; o += 4) dots<M, 4>(x, w + o * size, bias + o, y + o, ldy, size, whole);
    for (; o < outputs; ++o) dots<M, 1>(x, w + o * size, bias + o, y + o, ldy, size, whole);
}

static void dot_products(
    const float* x, const float* w, const float* bias, float* y, int64_t ldy, int64_t batch, int64_t size,
    int64_t outputs
) {
    int64_t b = 0;
    for (; b + 4 <= batch; b += 4) rows_of_dots<4>(x + b * size, w, bias, y + b * ldy, ldy, size, outputs);
    for (; b < batch; ++b) rows_of_dots<1>(x + b * size, w, bias, y + b * ldy, ldy, size, outputs);
}

// to [columns, padded rows] = the transpose of from [rows, columns].
static void turn(const float* from, int64_t rows, int64_t columns, float* to) {
    const int64_t ld = padded(rows);
    for (int64_t r = 0; r < rows; r += VL)
        for (int64_t c = 0; c < columns; c += VL) {
            vf block[VL], next[VL];
            for (int j = 0; j < VL; ++j) {
                const float* row = from + (r + j) * columns + c;
                fetch(row + rows * columns);  // the next layer's
                block[j] = r + j >= rows ? vf{} : c + VL <= columns ? load(row) : load(row, columns - c);
            }
#pragma GCC unroll 4
            for (int width = 1; width < VL; width *= 2) {
#pragma GCC unroll 8
                for (int j = 0; j < VL / 2; ++j) {
                    next[2 * j] = zip_low(block[j], block[j + VL / 2]);
                    next[2 * j + 1] = zip_high(block[j], block[j + VL / 2]);
                }
#pragma GCC unroll 16
                for (int j = 0; j < VL; ++j) block[j] = next[j];
            }
#pragma GCC unroll 16
            for (int j = 0; j < VL; ++j)
                if (c + j < columns) store(to + (c + j) * ld + r, block[j]);
        }
}

// Rows with zeros behind them; the rows themselves where they need none.
static const float* pad(const float* from, int64_t rows, int64_t columns, float* to) {
    const int64_t ld = padded(columns);
    if (ld == columns) return from;
    for (int64_t r = 0; r < rows; ++r) {
        memcpy(to + r * ld, from + r * columns, columns * sizeof(float));
        memset(to + r * ld + columns, 0, (ld - columns) * sizeof(float));
    }
    return to;
}

// The same back, in place.
static void unpad(float* matrix, int64_t rows, int64_t columns) {
    const int64_t ld = padded(columns);
    if (ld == columns) return;
    for (int64_t r = 1; r < rows; ++r) memmove(matrix + r * columns, matrix + r * ld, columns * sizeof(float));
}
