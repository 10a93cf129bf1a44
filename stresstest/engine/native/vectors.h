// Vectors of the machine's width, and what the passes need of them. Every sum has one order, whatever the machine does
// beside it: a replica's numbers depend on nothing but itself.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
constexpr int VL = 16;
#elif defined(__AVX__)
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef float loose_vf __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint16_t Lanes;  // a bit for each lane

constexpr int64_t padded(int64_t n) { return (n + VL - 1) / VL * VL; }

static inline vf load(const float* p) { return *reinterpret_cast<const loose_vf*>(p); }
static inline void store(float* p, vf v) { *reinterpret_cast<loose_vf*>(p) = v; }
static inline vf splat(float x) { return x - vf{}; }  // no sum: that would make 0 of -0

// a * b + c, rounded once where the machine can; nothing else is, whatever the compiler (-ffp-contract=off).
static inline vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return reinterpret_cast<vf>(vfmaq_f32(
        reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)
    ));
#else
    return a * b + c;
#endif
}

// The first n lanes, the others zero.
static inline vf load(const float* p, int n) {
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
#else
    vf v = {};
    for (int j = 0; j < n; ++j) v[j] = p[j];
    return v;
#endif
}

static inline void store(float* p, vf v, int n) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), v);
#else
    for (int j = 0; j < n; ++j) p[j] = v[j];
#endif
}

static inline void fetch(const float* p) { __builtin_prefetch(p); }  // of any address, also of none

// A store of what is not read again soon, past the caches.
static inline void store_away(float* p, vf v) {
#if defined(__AVX512F__)
    if (reinterpret_cast<uintptr_t>(p) % 64 == 0) return _mm512_stream_ps(p, v);
#endif
    store(p, v);
}

static inline vf root(vf v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX__)
    return _mm256_sqrt_ps(v);
#elif defined(__SSE2__)
    return _mm_sqrt_ps(v);
#elif defined(__aarch64__)
    return reinterpret_cast<vf>(vsqrtq_f32(reinterpret_cast<float32x4_t>(v)));
#else
    for (int j = 0; j < VL; ++j) v[j] = std::sqrt(v[j]);
    return v;
#endif
}

static inline float sum(vf v) {  // halves first
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(v);
#else
    float t[VL];
    store(t, v);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int j = 0; j < w; ++j) t[j] += t[j + w];
    return t[0];
#endif
}

static inline vf select(vi mask, vf yes, vf no) {
    return reinterpret_cast<vf>((reinterpret_cast<vi>(yes) & mask) | (reinterpret_cast<vi>(no) & ~mask));
}

static inline Lanes not_zero(vf v) {  // NaN is none
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#elif defined(__AVX__)
    return static_cast<Lanes>(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
#else
    Lanes lanes = 0;
    for (int j = 0; j < VL; ++j) lanes |= static_cast<Lanes>((v[j] != 0.0f) << j);
    return lanes;
#endif
}

static inline vf as_numbers(Lanes lanes) {  // 1 where there is a bit
#if defined(__AVX512F__)
    return _mm512_maskz_mov_ps(lanes, _mm512_set1_ps(1.0f));
#else
    vi bits = {};
    for (int j = 0; j < VL; ++j) bits[j] = 1 << j;
    return select((bits & lanes) != 0, splat(1.0f), vf{});
#endif
}

static inline vf relu(vf v) { return select(v < 0.0f, vf{}, v); }  // NaN stays NaN

static inline vf zip_low(vf a, vf b) {
#if defined(__clang__) || __GNUC__ >= 12
#if defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX__)
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
#else
    vf r;
    for (int j = 0; j < VL; ++j) r[j] = j % 2 ? b[j / 2] : a[j / 2];
    return r;
#endif
}

static inline vf zip_high(vf a, vf b) {
#if defined(__clang__) || __GNUC__ >= 12
#if defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(__AVX__)
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
#else
    vf r;
    for (int j = 0; j < VL; ++j) r[j] = j % 2 ? b[(VL + j) / 2] : a[(VL + j) / 2];
    return r;
#endif
}
