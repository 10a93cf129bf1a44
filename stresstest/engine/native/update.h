// What is done with the gradient of some parameters, in one pass over them: the sum of its squares, the optimizer's
// update with its state, and the sum of the parameters, which tells whether they are finite. The optimizers are those
// of optimizers.py.
#pragma once
#include "vectors.h"

enum Kind : int64_t { KEEP, MEASURE, SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM, GI_ADAM, RADAM, LION, NUM_KINDS };

struct Update {
    int64_t kind;
    int64_t decoupled;             // weight decay is no part of the gradient
    double first, second;          // the decays of its running means
    double eps, weight_decay;
    const float* rows;             // [R, 5]: lr, 1 / correction of each mean, RAdam's factor (0: not yet), first step
};

struct Bank {  // what is particular to the parameters of one kind
    double decays, lr, eps;        // whether weight decay applies; what multiplies learning rate and eps
};

struct Constants {
    float first, second, one_less_first, one_less_second;
    float lr, mean, square, rectified, is_first;
};

struct Row {  // of one replica
    float *theta, *grad, *first, *second;
};

template <int KIND>
static inline vf direction(const Constants& c, vf g, vf& first, vf& second, float eps) {
    if (KIND == SGD) return g;
    if (KIND == MOMENTUM || KIND == NESTEROV) {
        first = fma(first, splat(c.first), g);
        return KIND == MOMENTUM ? first : fma(splat(c.first), first, g);
    }
    if (KIND == ADAGRAD) {
        first = fma(g, g, first);
        return g / (root(first) + eps);
    }
    if (KIND == RMSPROP) {
        first = fma(first, splat(c.first), c.one_less_first * (g * g));
        return g / (root(first) + eps);
    }
    if (KIND == LION) {
        const vf ahead = fma(splat(c.one_less_first), g - first, first);
        first = fma(splat(c.one_less_second), g - first, first);
        return select(ahead > 0.0f, splat(1.0f), select(ahead < 0.0f, splat(-1.0f), vf{}));
    }
    if (KIND == GI_ADAM && c.is_first != 0.0f) second += g * g;
    first = fma(splat(c.one_less_first), g - first, first);
    second = fma(second, splat(c.second), c.one_less_second * (g * g));
    const vf mean = first * c.mean;
    if (KIND == RADAM) return c.rectified == 0.0f ? mean : mean * c.rectified / (root(second) + eps);
    return mean / (fma(root(second), splat(c.square), splat(eps)));
}

class Taker {
   public:
    Taker(const Row& row, const Update* update, const Bank* banks, int64_t r, int64_t kind)
        : row_(row), banks_(banks), kind_(kind) {
        if (!update || kind == KEEP || kind == MEASURE) return;
        const float* own = update->rows + 5 * r;
        c_ = {
            float(update->first), float(update->second), float(1.0 - update->first), float(1.0 - update->second),
            own[0], own[1], own[2], own[3], own[4],
        };
        weight_decay_ = update->weight_decay;
        eps_ = update->eps;
        decoupled_ = update->decoupled;
    }

    // The n parameters from start on, of a bank, have this gradient.
    void take(int64_t start, int64_t n, int64_t bank, const float* gradient) {
        switch (kind_) {
            case KEEP: return pass<KEEP>(start, n, bank, gradient);
            case MEASURE: return pass<MEASURE>(start, n, bank, gradient);
            case SGD: return pass<SGD>(start, n, bank, gradient);
            case MOMENTUM: return pass<MOMENTUM>(start, n, bank, gradient);
            case NESTEROV: return pass<NESTEROV>(start, n, bank, gradient);
            case ADAGRAD: return pass<ADAGRAD>(start, n, bank, gradient);
            case RMSPROP: return pass<RMSPROP>(start, n, bank, gradient);
            case ADAM: return pass<ADAM>(start, n, bank, gradient);
            case GI_ADAM: return pass<GI_ADAM>(start, n, bank, gradient);
            case RADAM: return pass<RADAM>(start, n, bank, gradient);
            case LION: return pass<LION>(start, n, bank, gradient);
        }
    }

    // As float32 has them: infinite from where the sum of squares is.
    float grad_norm() const { return std::sqrt(static_cast<float>(squares_)); }
    float parameter_sum() const { return static_cast<float>(sum_); }

   private:
    template <int KIND>
    void pass(int64_t start, int64_t n, int64_t bank, const float* gradient) {
        constexpr bool UPDATES = KIND != KEEP && KIND != MEASURE;
        constexpr bool HAS_FIRST = UPDATES && KIND != SGD;
        constexpr bool HAS_SECOND = KIND == ADAM || KIND == GI_ADAM || KIND == RADAM;
        const Bank& b = banks_[bank];
        const float decay = b.decays != 0.0 ? float(weight_decay_) : 0.0f;
        const float coupled = decoupled_ ? 0.0f : float(decay / b.lr);
        const float kept = decoupled_ ? 1.0f - c_.lr * decay : 1.0f;
        const float lr = float(c_.lr * b.lr), eps = float(eps_ * b.eps);
        float *theta = row_.theta + start, *grad = row_.grad + start;
        float *first = HAS_FIRST ? row_.first + start : nullptr, *second = HAS_SECOND ? row_.second + start : nullptr;
        vf squares = {}, total = {};
        for (int64_t i = 0; i < n; i += VL) {
            const bool whole = i + VL <= n;
            const int some = static_cast<int>(n - i);
            const auto get = [&](const float* p) { return whole ? load(p + i) : load(p + i, some); };
            const auto put = [&](float* p, vf v) { whole ? store(p + i, v) : store(p + i, v, some); };
            if (UPDATES) {  // those of the layer before it, which comes next
                fetch(theta + i - n);
                if (HAS_FIRST) fetch(first + i - n);
                if (HAS_SECOND) fetch(second + i - n);
            }
            vf g = get(gradient);
            squares = fma(g, g, squares);
            if (KIND == KEEP) put(grad, g);
            if (!UPDATES) continue;
            vf t = get(theta), s1 = HAS_FIRST ? get(first) : vf{}, s2 = HAS_SECOND ? get(second) : vf{};
            if (coupled != 0.0f) g = fma(splat(coupled), t, g);
            if (gradient != grad || coupled != 0.0f) whole ? store_away(grad + i, g) : store(grad + i, g, some);
            if (kept != 1.0f) t *= kept;
            t = fma(splat(-lr), direction<KIND>(c_, g, s1, s2, eps), t);
            put(theta, t);
            if (HAS_FIRST) put(first, s1);
            if (HAS_SECOND) put(second, s2);
            total += whole ? t : load(theta + i, some);
        }
        squares_ += sum(squares);
        if (UPDATES) sum_ += sum(total);
    }

    Row row_;
    const Bank* banks_;
    int64_t kind_;
    Constants c_ = {};
    double weight_decay_ = 0.0, eps_ = 0.0;
    int64_t decoupled_ = 0;
    double squares_ = 0.0, sum_ = 0.0;
};
