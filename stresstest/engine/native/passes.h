// Forward and backward of one replica:
//
//     x <- post(skip * x + gate * out(ReLU(W (pre_gain * pre(x)) + b)))
//
// between an input layer with ReLU and an output layer with a cross-entropy (stresstest/models/residual_mlp.py). What
// a block keeps for the way back is x; where ReLU was open, or what its out norm read; and what its post norm read.
#pragma once
#include "model.h"
#include "products.h"

struct Factor {  // a number for all, or one for each column
    float scalar;
    const float* vector;
    vf at(int64_t i) const { return vector ? load(vector + i) : splat(scalar); }
    bool is(float x) const { return !vector && scalar == x; }
};

class Passes {
   public:
    Passes(const Model& m, int64_t batch, float* memory, const float* theta, bool keeps)
        : m_(m), s_{batch, m.width, padded(m.width)}, w_(m, batch, memory), theta_(theta), keeps_(keeps) {}

    float loss(const Batch& batch, int64_t r) {
        embed(batch.inputs + r * s_.batch * m_.inputs);
        for (int64_t layer = 0; layer < m_.depth; ++layer) block(layer);
        read_out();
        const float share = batch.shares ? batch.shares[r] : 1.0f;
        return cross_entropy(batch.targets + r * s_.batch, float(batch.smoothing), share);
    }

    // After `loss`: every parameter's gradient goes to `taker`, which may change it once it is not needed any more.
    void backward(const Batch& batch, int64_t r, Taker& taker) {
        const auto take = [&](int64_t start, int64_t n, int64_t bank) {
            const bool is_matrix = bank == WEIGHT || bank == IN_WEIGHT || bank == OUT_WEIGHT;
            taker.take(start, n, bank, is_matrix ? w_.gradient : piece(bank));
        };
        read_out_backward();
        over_end(m_, true, take);
        for (int64_t layer = m_.depth - 1; layer >= 0; --layer) {
            block_backward(layer);
            over_block(m_, layer, take);
        }
        embed_backward(batch.inputs + r * s_.batch * m_.inputs);
        over_end(m_, false, take);
    }

   private:
    void embed(const float* inputs) {
        float* x = has(0, FIRST_GAIN) ? w_.embedded : stream(0);
        if (s_.ld != s_.width) memset(x, 0, s_.size() * sizeof(float));
        const float *weights = theta_ + start(0, IN_WEIGHT), *bias = theta_ + start(0, IN_BIAS);
        dot_products(inputs, weights, bias, x, s_.ld, s_.batch, m_.inputs, m_.width);
        over_stream([&](int64_t at, int64_t) { store(x + at, relu(load(x + at))); });
        if (has(0, FIRST_GAIN)) norm(0, FIRST_GAIN, x, stream(0));
    }

    void embed_backward(const float* inputs) {
        const float* x = has(0, FIRST_GAIN) ? w_.embedded : stream(0);
        if (has(0, FIRST_GAIN)) norm_back(0, FIRST_GAIN, x, w_.d);
        over_stream([&](int64_t at, int64_t) {
            store(w_.d + at, as_numbers(not_zero(load(x + at))) * load(w_.d + at));
        });
        column_sums(w_.d, s_.ld, piece(IN_BIAS));
        const int64_t ld = padded(m_.inputs);
        const float* rows = pad(inputs, s_.batch, m_.inputs, w_.inputs);
        product<true>(w_.d, s_.ld, rows, ld, s_.batch, nullptr, w_.gradient, ld, m_.width, ld);
        unpad(w_.gradient, m_.width, m_.inputs);
    }

    void block(int64_t layer) {
        const float* x = stream(layer);
        const bool out = has(layer, OUT_GAIN), post = has(layer, POST_GAIN);
        float *z = out ? kept(w_.h, layer) : w_.z, *joined = post ? kept(w_.joined, layer) : stream(layer + 1);
        turn(theta_ + start(layer, WEIGHT), m_.width, m_.width, w_.turned);
        const float *u = branch_input(layer, true), *bias = vector(layer, BIAS, m_.width);
        product<false>(u, s_.ld, w_.turned, s_.ld, m_.width, bias, z, s_.ld, s_.batch, s_.ld);
        Lanes* open = w_.open + (keeps_ ? layer * s_.size() / VL : 0);
        over_stream([&](int64_t at, int64_t) {
            const vf h = relu(load(z + at));
            store(z + at, h);
            if (!out && keeps_) open[at / VL] = not_zero(h);
        });
        if (out) norm(layer, OUT_GAIN, z, w_.z);
        const Factor gate = factor(layer, GATE), skip = factor(layer, SKIP);
        const bool skips = !skip.is(0.0f);
        over_stream([&](int64_t at, int64_t i) {
            const vf o = gate.at(i) * load(w_.z + at);
            store(joined + at, skips ? fma(skip.at(i), load(x + at), o) : o);
        });
        if (post) norm(layer, POST_GAIN, joined, stream(layer + 1));
    }

    // What W is applied to: pre_gain * pre(x), in `u` where that is not x.
    const float* branch_input(int64_t layer, bool forward) {
        const float *x = stream(layer), gain = m_.constants[3 * layer + 2];
        const bool pre = has(layer, PRE_GAIN);
        if (pre && forward) norm(layer, PRE_GAIN, x, w_.u);
        if (pre && !forward) norm_again(layer, PRE_GAIN, x, w_.u);
        const float* found = pre ? w_.u : x;
        if (gain == 1.0f) return found;
        over_stream([&](int64_t at, int64_t) { store(w_.u + at, gain * load(found + at)); });
        return w_.u;
    }

    void block_backward(int64_t layer) {
        const float* x = stream(layer);
        float* g = w_.z;  // the gradient of W u + b
        const Factor gate = factor(layer, GATE), skip = factor(layer, SKIP);
        const bool out = has(layer, OUT_GAIN), folds = has(layer, GATE) && !out;
        if (has(layer, POST_GAIN)) norm_back(layer, POST_GAIN, kept(w_.joined, layer), w_.d);
        if (has(layer, SKIP)) column_sums_of_products(w_.d, x, piece(SKIP));
        if (out) {
            through_out_norm(layer, gate, g);
        } else {
            const Lanes* open = w_.open + layer * s_.size() / VL;
            const float* next = x - s_.size();  // what the block before it reads
            const Factor by = folds ? Factor{1.0f, nullptr} : gate;
            over_stream([&](int64_t at, int64_t i) {
                store(g + at, as_numbers(open[at / VL]) * load(w_.d + at) * by.at(i));
                fetch(next + at);
            });
        }
        column_sums(g, s_.ld, piece(BIAS));
        const float* u = branch_input(layer, false);
        product<true>(g, s_.ld, u, s_.ld, s_.batch, nullptr, w_.gradient, s_.ld, m_.width, s_.ld);
        const float* weights = pad(theta_ + start(layer, WEIGHT), m_.width, m_.width, w_.weights);
        if (folds) {
            fold_gate(layer, gate, weights);
            over_stream([&](int64_t at, int64_t i) { store(g + at, load(g + at) * gate.at(i)); });
        }
        unpad(w_.gradient, m_.width, m_.width);
        product<false>(g, s_.ld, weights, s_.ld, m_.width, nullptr, w_.du, s_.ld, s_.batch, s_.ld);
        into_stream(layer, skip);
    }

    // d <- skip * d + pre'(pre_gain * du)
    void into_stream(int64_t layer, const Factor& skip) {
        const float gain = m_.constants[3 * layer + 2];
        if (gain != 1.0f) over_stream([&](int64_t at, int64_t) { store(w_.du + at, gain * load(w_.du + at)); });
        if (has(layer, PRE_GAIN)) norm_back(layer, PRE_GAIN, stream(layer), w_.du);
        const bool skips = !skip.is(0.0f);
        over_stream([&](int64_t at, int64_t i) {
            const vf du = load(w_.du + at);
            store(w_.d + at, skips ? fma(skip.at(i), load(w_.d + at), du) : du);
        });
    }

    void through_out_norm(int64_t layer, const Factor& gate, float* g) {
        const float* h = kept(w_.h, layer);
        if (has(layer, GATE)) {
            norm_again(layer, OUT_GAIN, h, w_.u);
            column_sums_of_products(w_.d, w_.u, piece(GATE));
            if (m_.gate_size == 1) piece(GATE)[0] = sum_of(piece(GATE));
        }
        over_stream([&](int64_t at, int64_t i) { store(g + at, load(w_.d + at) * gate.at(i)); });
        const bool adds = layer < m_.depth - 1 && shares_its_out_norm(m_, layer + 1);
        norm_back(layer, OUT_GAIN, h, g, adds);
        over_stream([&](int64_t at, int64_t) { store(g + at, as_numbers(not_zero(load(h + at))) * load(g + at)); });
    }

    // A gate is a factor of W and b together, so that its gradient is <W, dW> + <b, db>, row by row.
    void fold_gate(int64_t layer, const Factor& gate, const float* weights) {
        const float* bias = theta_ + start(layer, BIAS);
        float *found = piece(GATE), *d_bias = piece(BIAS), of_biases = 0.0f;
        vf along = {};
        for (int64_t o = 0; o < m_.width; ++o) {
            const float factor = gate.vector ? gate.vector[o] : gate.scalar;
            float* row = w_.gradient + o * s_.ld;
            if (gate.vector) along = vf{};
            for (int64_t i = 0; i < s_.ld; i += VL) {
                const vf d = load(row + i);
                along = fma(d, load(weights + o * s_.ld + i), along);
                store(row + i, d * factor);
            }
            if (gate.vector) found[o] = sum(along) + bias[o] * d_bias[o];
            of_biases += bias[o] * d_bias[o];
            d_bias[o] *= factor;
        }
        if (!gate.vector) found[0] = sum(along) + of_biases;
    }

    void read_out() {
        const float *x = stream(m_.depth), multiplier = float(m_.multiplier);
        if (has(0, LAST_GAIN)) norm(0, LAST_GAIN, x, w_.u);
        if (has(0, LAST_GAIN)) x = w_.u;
        over_stream([&](int64_t at, int64_t) { store(w_.u + at, multiplier * load(x + at)); });
        const int64_t ld = padded(m_.classes);
        turn(theta_ + start(0, OUT_WEIGHT), m_.classes, m_.width, w_.turned);
        const float* bias = vector(0, OUT_END_BIAS, m_.classes);
        product<false>(w_.u, s_.ld, w_.turned, ld, m_.width, bias, w_.logits, ld, s_.batch, ld);
    }

    void read_out_backward() {
        const int64_t ld = padded(m_.classes);
        column_sums(w_.logits, ld, piece(OUT_END_BIAS));
        product<true>(w_.logits, ld, w_.u, s_.ld, s_.batch, nullptr, w_.gradient, s_.ld, m_.classes, s_.ld);
        unpad(w_.gradient, m_.classes, m_.width);
        const float* weights = pad(theta_ + start(0, OUT_WEIGHT), m_.classes, m_.width, w_.weights);
        product<false>(w_.logits, ld, weights, s_.ld, m_.classes, nullptr, w_.d, s_.ld, s_.batch, s_.ld);
        const float multiplier = float(m_.multiplier);
        over_stream([&](int64_t at, int64_t) { store(w_.d + at, multiplier * load(w_.d + at)); });
        if (has(0, LAST_GAIN)) norm_back(0, LAST_GAIN, stream(m_.depth), w_.d);
    }

    // The mean over the batch; the logits become its gradient, times the share.
    float cross_entropy(const int64_t* targets, float smoothing, float share) {
        const int64_t ld = padded(m_.classes), count = m_.classes;
        const float scale = share / static_cast<float>(s_.batch), uniform = smoothing / static_cast<float>(count);
        float total = 0.0f;
        for (int64_t b = 0; b < s_.batch; ++b) {
            float *row = w_.logits + b * ld, largest = row[0], mass = 0.0f, others = 0.0f;
            for (int64_t c = 1; c < count; ++c) largest = row[c] > largest || row[c] != row[c] ? row[c] : largest;
            for (int64_t c = 0; c < count; ++c) mass += std::exp(row[c] - largest);
            const float log_mass = std::log(mass);
            for (int64_t c = 0; c < count; ++c) row[c] = (row[c] - largest) - log_mass;
            const int64_t target = targets[b];
            const float own = target >= 0 && target < count ? -row[target] : NAN;
            for (int64_t c = 0; smoothing != 0.0f && c < count; ++c) others -= row[c];
            total += smoothing == 0.0f ? own : (1.0f - smoothing) * own + uniform * others;
            for (int64_t c = 0; c < count; ++c) {
                const float wanted = (c == target ? 1.0f - smoothing : 0.0f) + uniform;
                row[c] = (std::exp(row[c]) - wanted) * scale;
            }
        }
        return total / static_cast<float>(s_.batch);
    }

    // A norm by its gain's bank, in front of its bias's: of a block, or of an end.
    void norm(int64_t layer, int64_t bank, const float* x, float* y) {
        const float *gain = vector(layer, bank, m_.width), *bias = vector(layer, bank + 1, m_.width);
        norm_forward(m_.norm, s_, x, statistics(layer, bank), gain, bias, y);
    }

    void norm_again(int64_t layer, int64_t bank, const float* x, float* y) {
        const float *gain = vector(layer, bank, m_.width), *bias = vector(layer, bank + 1, m_.width);
        norm_apply(s_, x, statistics(layer, bank), gain, bias, y);
    }

    void norm_back(int64_t layer, int64_t bank, const float* x, float* d, bool adds = false) {
        float *d_gain = piece(bank), *d_bias = has(layer, bank + 1) ? piece(bank + 1) : nullptr;
        if (!adds) memset(d_gain, 0, s_.ld * sizeof(float));
        if (!adds && d_bias) memset(d_bias, 0, s_.ld * sizeof(float));
        const float* gain = vector(layer, bank, m_.width);
        norm_backward(m_.norm, s_, x, statistics(layer, bank), gain, d, d_gain, d_bias, bank >= NUM_PARTS);
    }

    template <class F>
    void over_stream(F f) const {  // f(place in the stream, column)
        for (int64_t b = 0; b < s_.batch; ++b)
            for (int64_t i = 0; i < s_.ld; i += VL) f(b * s_.ld + i, i);
    }

    void column_sums(const float* matrix, int64_t ld, float* found) const {
        for (int64_t i = 0; i < ld; i += VL) {
            vf total = {};
            for (int64_t b = 0; b < s_.batch; ++b) total += load(matrix + b * ld + i);
            store(found + i, total);
        }
    }

    void column_sums_of_products(const float* left, const float* right, float* found) const {
        for (int64_t i = 0; i < s_.ld; i += VL) {
            vf total = {};
            for (int64_t at = i; at < s_.size(); at += s_.ld) total = fma(load(left + at), load(right + at), total);
            store(found + i, total);
        }
    }

    float sum_of(const float* vector) const {
        vf total = {};
        for (int64_t i = 0; i < s_.ld; i += VL) total += load(vector + i);
        return sum(total);
    }

    // A block's gate or skip: learned, or a constant.
    Factor factor(int64_t layer, int64_t bank) {
        if (!has(layer, bank)) return {m_.constants[3 * layer + (bank == GATE ? 1 : 0)], nullptr};
        if (bank == GATE && m_.gate_size == 1) return {theta_[start(layer, bank)], nullptr};
        return {0.0f, vector(layer, bank, m_.width)};
    }

    // A vector of parameters with zeros behind it; null where there is none.
    const float* vector(int64_t layer, int64_t bank, int64_t n) {
        if (!has(layer, bank)) return nullptr;
        return pad(theta_ + start(layer, bank), 1, n, w_.spare + bank * w_.longest);
    }

    float* piece(int64_t bank) { return w_.pieces + bank * w_.longest; }
    int64_t start(int64_t layer, int64_t bank) const {
        return bank < NUM_PARTS ? m_.places[layer * NUM_PARTS + bank] : m_.ends[bank - NUM_PARTS];
    }
    bool has(int64_t layer, int64_t bank) const { return start(layer, bank) >= 0; }
    float* stream(int64_t layer) { return w_.x + (keeps_ ? layer : layer % 2) * s_.size(); }
    float* kept(float* all, int64_t layer) { return all + (keeps_ ? layer : 0) * s_.size(); }
    float* statistics(int64_t layer, int64_t bank) {  // two for each of a block's three norms, and of the ends' two
        const int64_t of_block = (keeps_ ? 3 * layer : 0) + (bank - PRE_GAIN) / 2;
        const int64_t place = bank < NUM_PARTS ? of_block : 3 * m_.depth + (bank - FIRST_GAIN) / 2;
        return w_.statistics + place * 2 * s_.batch;
    }

    const Model& m_;
    Shape s_;
    Work w_;
    const float* theta_;
    bool keeps_;
};
