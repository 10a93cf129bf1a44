// Forward, backward and update of residual MLPs, one replica after the other:
//
//     x <- post(skip * x + gate * out(ReLU(W (pre_gain * pre(x)) + b)))
//
// between an input layer with ReLU and an output layer with a cross-entropy (stresstest/models/residual_mlp.py). What
// a block keeps for the way back is x; where ReLU was open, or what its out norm read; and what its post norm read.
#include "norms.h"
#include "products.h"
#include "update.h"

enum Part { WEIGHT, BIAS, PRE_GAIN, PRE_BIAS, OUT_GAIN, OUT_BIAS, POST_GAIN, POST_BIAS, SKIP, GATE, NUM_PARTS };
enum End {  // banks of the ends, behind those of the blocks
    IN_WEIGHT = NUM_PARTS, IN_BIAS, FIRST_GAIN, FIRST_BIAS, LAST_GAIN, LAST_BIAS, OUT_WEIGHT, OUT_END_BIAS, NUM_BANKS
};

struct Model {
    int64_t depth, width, inputs, classes, norm;
    int64_t gate_size;        // of a learned gate, 1 or the width; 0 where none is learned
    double multiplier;        // of the stream before the output layer
    const int64_t* ends;      // where each bank of the ends starts in a row; -1 where there is none
    const int64_t* places;    // [depth, NUM_PARTS]: where each part of a block starts in a row; -1 where there is none
    const float* constants;   // [depth, 3]: skip, gate, pre_gain
    const Bank* banks;        // [NUM_BANKS]
    int64_t num_out, num_post;  // blocks with an out norm, and with a post norm
};

struct Rows {  // of all replicas; strides in floats
    float *theta, *grad, *first, *second;
    int64_t theta_stride, grad_stride, first_stride, second_stride;
    Row at(int64_t r) const {
        return {theta + r * theta_stride, grad + r * grad_stride, first + r * first_stride, second + r * second_stride};
    }
};

struct Batch {
    int64_t replicas, size;
    const float* inputs;      // [R, B, I]
    const int64_t* targets;   // [R, B]
    const float* shares;      // [R]: what each replica's gradient is multiplied by
    double smoothing;
};

// Memory for one replica's passes; with a null start, only how much that is.
struct Work {
    float *x, *embedded, *h, *joined, *statistics, *inputs, *turned, *weights, *gradient, *u, *z, *d, *du, *logits, *pieces, *spare;
    Lanes* open;
    int64_t floats;

    Work(const Model& m, int64_t batch, float* start) {
        floats = 0;
        const auto some = [&](int64_t n) {
            const int64_t first = floats;
            floats += (n + 15) / 16 * 16;
            return start ? start + first : nullptr;
        };
        const int64_t d_p = padded(m.width), c_p = padded(m.classes), i_p = padded(m.inputs), stream = batch * d_p;
        x = some((m.depth + 1) * stream);
        embedded = some(stream);
        open = reinterpret_cast<Lanes*>(some(m.num_out < m.depth ? m.depth * stream / VL / 2 + 1 : 0));
        h = some(m.num_out ? m.depth * stream : 0);
        joined = some(m.num_post ? m.depth * stream : 0);
        statistics = some(m.norm != NO_NORM ? (3 * m.depth + 2) * 2 * batch : 0);
        inputs = some(i_p == m.inputs ? 0 : batch * i_p);
        turned = some(m.width * (d_p > c_p ? d_p : c_p));
        weights = some((m.width > m.classes ? m.width : m.classes) * d_p);
        gradient = some(m.width * (i_p > d_p ? i_p : d_p) + m.classes * d_p);
        u = some(stream), z = some(stream), d = some(stream), du = some(stream);
        logits = some(batch * c_p);
        const int64_t vector = d_p > c_p ? d_p : c_p;
        pieces = some(NUM_BANKS * vector);
        spare = some(NUM_BANKS * vector);
    }
};

static bool shares_its_out_norm(const Model& m, int64_t layer) {  // with the block before it
    return layer > 0 && m.places[layer * NUM_PARTS + OUT_GAIN] == m.places[(layer - 1) * NUM_PARTS + OUT_GAIN];
}

// All parameters of a block in the order in which they are taken; f(start, n, bank).
template <class F>
static void over_block(const Model& m, int64_t layer, F f) {
    for (int64_t part = 0; part < NUM_PARTS; ++part) {
        const int64_t start = m.places[layer * NUM_PARTS + part];
        if (start < 0 || ((part == OUT_GAIN || part == OUT_BIAS) && shares_its_out_norm(m, layer))) continue;
        f(start, part == WEIGHT ? m.width * m.width : part == GATE ? m.gate_size : m.width, part);
    }
}

// The same of the banks behind the blocks, and of those before them.
template <class F>
static void over_end(const Model& m, bool behind, F f) {
    for (int64_t bank = behind ? LAST_GAIN : IN_WEIGHT; bank < (behind ? NUM_BANKS : LAST_GAIN); ++bank) {
        const int64_t start = m.ends[bank - NUM_PARTS];
        const int64_t rows = bank == OUT_WEIGHT || bank == OUT_END_BIAS ? m.classes : m.width;
        const int64_t columns = bank == IN_WEIGHT ? m.inputs : bank == OUT_WEIGHT ? m.width : 1;
        if (start >= 0) f(start, rows * columns, bank);
    }
}

template <class F>
static void over_all(const Model& m, F f) {
    over_end(m, true, f);
    for (int64_t layer = m.depth - 1; layer >= 0; --layer) over_block(m, layer, f);
    over_end(m, false, f);
}

struct Factor {  // a number for all, or one for each column
    float scalar;
    const float* vector;
    vf at(int64_t i) const { return vector ? load(vector + i) : splat(scalar); }
    bool is(float x) const { return !vector && scalar == x; }
};

class Passes {  // of one replica
   public:
    Passes(const Model& m, int64_t batch, float* start, const float* theta, bool keeps)
        : m_(m), s_{batch, m.width, padded(m.width)}, w_(m, batch, start), theta_(theta), keeps_(keeps) {}

    float loss(const Batch& batch, int64_t r) {
        embed(batch.inputs + r * s_.batch * m_.inputs);
        for (int64_t layer = 0; layer < m_.depth; ++layer) block(layer);
        read_out();
        return cross_entropy(batch.targets + r * s_.batch, float(batch.smoothing), batch.shares ? batch.shares[r] : 1.0f);
    }

    // After `loss`: every parameter's gradient goes to `taker`, which may change it once it is not needed any more.
    void backward(const Batch& batch, int64_t r, Taker& taker) {
        read_out_backward();
        over_end(m_, true, [&](int64_t start, int64_t n, int64_t bank) {
            taker.take(start, n, bank, bank == OUT_WEIGHT ? w_.gradient : piece(bank));
        });
        for (int64_t layer = m_.depth - 1; layer >= 0; --layer) {
            block_backward(layer);
            over_block(m_, layer, [&](int64_t start, int64_t n, int64_t bank) {
                taker.take(start, n, bank, bank == WEIGHT ? w_.gradient : piece(bank));
            });
        }
        embed_backward(batch.inputs + r * s_.batch * m_.inputs);
        over_end(m_, false, [&](int64_t start, int64_t n, int64_t bank) {
            taker.take(start, n, bank, bank == IN_WEIGHT ? w_.gradient : piece(bank));
        });
    }

   private:
    void embed(const float* inputs) {
        const bool normed = end(FIRST_GAIN) >= 0;
        float* x = normed ? w_.embedded : stream(0);
        if (s_.ld != s_.width) memset(x, 0, s_.size() * sizeof(float));
        dot_products(
            inputs, theta_ + end(IN_WEIGHT), theta_ + end(IN_BIAS), x, s_.ld, s_.batch, m_.inputs, m_.width
        );
        over_stream([&](int64_t at, int64_t) { store(x + at, relu(load(x + at))); });
        if (normed) norm(FIRST_GAIN, end(FIRST_GAIN), end(FIRST_BIAS), x, end_statistics(0), stream(0));
    }

    void embed_backward(const float* inputs) {
        const bool normed = end(FIRST_GAIN) >= 0;
        const float* x = normed ? w_.embedded : stream(0);
        if (normed) norm_back(FIRST_GAIN, end(FIRST_GAIN), end(FIRST_BIAS), x, end_statistics(0), w_.d, true);
        over_stream([&](int64_t at, int64_t) {
            store(w_.d + at, as_numbers(not_zero(load(x + at))) * load(w_.d + at));
        });
        column_sums(w_.d, s_.ld, piece(IN_BIAS));
        const int64_t ld = padded(m_.inputs);
        product<true>(
            w_.d, s_.ld, pad(inputs, s_.batch, m_.inputs, w_.inputs), ld, s_.batch, nullptr, w_.gradient, ld, m_.width, ld
        );
        unpad(w_.gradient, m_.width, m_.inputs);
    }

    void block(int64_t layer) {
        const float* x = stream(layer);
        const bool out = has(layer, OUT_GAIN), post = has(layer, POST_GAIN);
        float* z = out ? kept(w_.h, layer) : w_.z;
        const float* bias = vector(BIAS, place(layer, BIAS), m_.width);
        turn(theta_ + place(layer, WEIGHT), m_.width, m_.width, w_.turned);
        product<false>(branch_input(layer, true), s_.ld, w_.turned, s_.ld, m_.width, bias, z, s_.ld, s_.batch, s_.ld);
        float *next = stream(layer + 1), *joined = post ? kept(w_.joined, layer) : next;
        const Factor gate = gate_of(layer), skip = skip_of(layer);
        Lanes* open = w_.open + (keeps_ ? layer * s_.size() / VL : 0);
        over_stream([&](int64_t at, int64_t) {
            const vf h = relu(load(z + at));
            store(z + at, h);
            if (!out && keeps_) open[at / VL] = not_zero(h);
        });
        if (out) {
            norm(OUT_GAIN, place(layer, OUT_GAIN), place(layer, OUT_BIAS), z, statistics(layer, 1), w_.z);
            z = w_.z;
        }
        const bool skips = !skip.is(0.0f);
        over_stream([&](int64_t at, int64_t i) {
            const vf o = gate.at(i) * load(z + at);
            store(joined + at, skips ? fma(skip.at(i), load(x + at), o) : o);
        });
        if (post) norm(POST_GAIN, place(layer, POST_GAIN), place(layer, POST_BIAS), joined, statistics(layer, 2), next);
    }

    // What W is applied to: pre_gain * pre(x), in `u` where that is not x.
    const float* branch_input(int64_t layer, bool forward) {
        const float *x = stream(layer), gain = m_.constants[3 * layer + 2];
        const int64_t pre = place(layer, PRE_GAIN), bias = place(layer, PRE_BIAS);
        if (pre >= 0 && forward) norm(PRE_GAIN, pre, bias, x, statistics(layer, 0), w_.u);
        if (pre >= 0 && !forward) norm_again(PRE_GAIN, pre, bias, x, statistics(layer, 0), w_.u);
        const float* found = pre >= 0 ? w_.u : x;
        if (gain == 1.0f) return found;
        over_stream([&](int64_t at, int64_t) { store(w_.u + at, gain * load(found + at)); });
        return w_.u;
    }

    void block_backward(int64_t layer) {
        const float* x = stream(layer);
        const Factor gate = gate_of(layer), skip = skip_of(layer);
        const bool learned = has(layer, GATE), out = has(layer, OUT_GAIN);
        if (has(layer, POST_GAIN))
            norm_back(
                POST_GAIN, place(layer, POST_GAIN), place(layer, POST_BIAS), kept(w_.joined, layer),
                statistics(layer, 2), w_.d, true
            );
        if (has(layer, SKIP)) column_sums_of_products(w_.d, x, piece(SKIP));
        float* g = w_.z;
        if (out) {
            through_out_norm(layer, gate, g);
        } else {
            const Lanes* open = w_.open + layer * s_.size() / VL;
            const float* before = x - s_.size();  // read next
            const Factor folded = learned ? Factor{1.0f, nullptr} : gate;
            over_stream([&](int64_t at, int64_t i) {
                store(g + at, as_numbers(open[at / VL]) * load(w_.d + at) * folded.at(i));
                fetch(before + at);
            });
        }
        column_sums(g, s_.ld, piece(BIAS));
        const float* u = branch_input(layer, false);
        product<true>(g, s_.ld, u, s_.ld, s_.batch, nullptr, w_.gradient, s_.ld, m_.width, s_.ld);
        const float* weights = pad(theta_ + place(layer, WEIGHT), m_.width, m_.width, w_.weights);
        if (learned && !out) {
            fold_gate(layer, gate, weights);
            over_stream([&](int64_t at, int64_t i) { store(g + at, load(g + at) * gate.at(i)); });
        }
        unpad(w_.gradient, m_.width, m_.width);
        product<false>(g, s_.ld, weights, s_.ld, m_.width, nullptr, w_.du, s_.ld, s_.batch, s_.ld);
        into_stream(layer, skip);
    }

    // d <- skip * d + pre_gain * pre'(du)
    void into_stream(int64_t layer, const Factor& skip) {
        const float* x = stream(layer);
        const float gain = m_.constants[3 * layer + 2];
        if (gain != 1.0f) over_stream([&](int64_t at, int64_t) { store(w_.du + at, gain * load(w_.du + at)); });
        if (has(layer, PRE_GAIN))
            norm_back(
                PRE_GAIN, place(layer, PRE_GAIN), place(layer, PRE_BIAS), x, statistics(layer, 0), w_.du, true
            );
        const bool skips = !skip.is(0.0f);
        over_stream([&](int64_t at, int64_t i) {
            const vf du = load(w_.du + at);
            store(w_.d + at, skips ? fma(skip.at(i), load(w_.d + at), du) : du);
        });
    }

    void through_out_norm(int64_t layer, const Factor& gate, float* g) {
        const float* h = kept(w_.h, layer);
        const int64_t gain = place(layer, OUT_GAIN), bias = place(layer, OUT_BIAS);
        if (has(layer, GATE)) {
            norm_again(OUT_GAIN, gain, bias, h, statistics(layer, 1), w_.u);
            column_sums_of_products(w_.d, w_.u, piece(GATE));
            if (m_.gate_size == 1) piece(GATE)[0] = sum_of(piece(GATE));
        }
        over_stream([&](int64_t at, int64_t i) { store(g + at, load(w_.d + at) * gate.at(i)); });
        const bool anew = layer == m_.depth - 1 || !shares_its_out_norm(m_, layer + 1);
        norm_back(OUT_GAIN, gain, bias, h, statistics(layer, 1), g, anew);
        over_stream([&](int64_t at, int64_t) {
            store(g + at, as_numbers(not_zero(load(h + at))) * load(g + at));
        });
    }

    // The gate's gradient is that of a factor of W and b together: <W, dW> + <b, db>, row by row.
    void fold_gate(int64_t layer, const Factor& gate, const float* weights) {
        const float* bias = theta_ + place(layer, BIAS);
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
        const float* x = stream(m_.depth);
        if (end(LAST_GAIN) >= 0) {
            norm(LAST_GAIN, end(LAST_GAIN), end(LAST_BIAS), x, end_statistics(1), w_.u);
            x = w_.u;
        }
        const float multiplier = float(m_.multiplier);
        over_stream([&](int64_t at, int64_t) { store(w_.u + at, multiplier * load(x + at)); });
        const int64_t ld = padded(m_.classes);
        turn(theta_ + end(OUT_WEIGHT), m_.classes, m_.width, w_.turned);
        const float* bias = vector(OUT_END_BIAS, end(OUT_END_BIAS), m_.classes);
        product<false>(w_.u, s_.ld, w_.turned, ld, m_.width, bias, w_.logits, ld, s_.batch, ld);
    }

    void read_out_backward() {
        const int64_t ld = padded(m_.classes);
        column_sums(w_.logits, ld, piece(OUT_END_BIAS));
        product<true>(w_.logits, ld, w_.u, s_.ld, s_.batch, nullptr, w_.gradient, s_.ld, m_.classes, s_.ld);
        unpad(w_.gradient, m_.classes, m_.width);
        const float* weights = pad(theta_ + end(OUT_WEIGHT), m_.classes, m_.width, w_.weights);
        product<false>(w_.logits, ld, weights, s_.ld, m_.classes, nullptr, w_.d, s_.ld, s_.batch, s_.ld);
        const float multiplier = float(m_.multiplier);
        over_stream([&](int64_t at, int64_t) { store(w_.d + at, multiplier * load(w_.d + at)); });
        if (end(LAST_GAIN) >= 0)
            norm_back(
                LAST_GAIN, end(LAST_GAIN), end(LAST_BIAS), stream(m_.depth), end_statistics(1), w_.d, true
            );
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
            const float own = -row[targets[b]];
            if (smoothing != 0.0f)
                for (int64_t c = 0; c < count; ++c) others -= row[c];
            total += smoothing == 0.0f ? own : (1.0f - smoothing) * own + uniform * others;
            for (int64_t c = 0; c < count; ++c) {
                const float wanted = (c == targets[b] ? 1.0f - smoothing : 0.0f) + uniform;
                row[c] = (std::exp(row[c]) - wanted) * scale;
            }
        }
        return total / static_cast<float>(s_.batch);
    }

    void norm(int64_t bank, int64_t gain, int64_t bias, const float* x, float* statistics, float* y) {
        const float* b = bias < 0 ? nullptr : vector(bank + 1, bias, m_.width);
        norm_forward(m_.norm, s_, x, statistics, vector(bank, gain, m_.width), b, y);
    }

    void norm_again(int64_t bank, int64_t gain, int64_t bias, const float* x, const float* statistics, float* y) {
        const float* b = bias < 0 ? nullptr : vector(bank + 1, bias, m_.width);
        norm_apply(s_, x, statistics, vector(bank, gain, m_.width), b, y);
    }

    void norm_back(
        int64_t bank, int64_t gain, int64_t bias, const float* x, const float* statistics, float* d, bool anew
    ) {
        float *d_gain = piece(bank), *d_bias = bias < 0 ? nullptr : piece(bank + 1);
        if (anew) memset(d_gain, 0, s_.ld * sizeof(float));
        if (anew && d_bias) memset(d_bias, 0, s_.ld * sizeof(float));
        norm_backward(m_.norm, s_, x, statistics, vector(bank, gain, m_.width), d, d_gain, d_bias);
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

    void column_sums_of_products(const float* a, const float* b, float* found) const {
        for (int64_t i = 0; i < s_.ld; i += VL) {
            vf total = {};
            for (int64_t row = 0; row < s_.batch; ++row) 
                total = fma(load(a + row * s_.ld + i), load(b + row * s_.ld + i), total);
            store(found + i, total);
        }
    }

    float sum_of(const float* vector) const {
        vf total = {};
        for (int64_t i = 0; i < s_.ld; i += VL) total += load(vector + i);
        return sum(total);
    }

    Factor gate_of(int64_t layer) {
        const int64_t start = place(layer, GATE);
        if (start < 0) return {m_.constants[3 * layer + 1], nullptr};
        if (m_.gate_size == 1) return {theta_[start], nullptr};
        return {0.0f, vector(GATE, start, m_.width)};
    }

    Factor skip_of(int64_t layer) {
        const int64_t start = place(layer, SKIP);
        if (start < 0) return {m_.constants[3 * layer], nullptr};
        return {0.0f, vector(SKIP, start, m_.width)};
    }

    // A vector of parameters with zeros behind it.
    const float* vector(int64_t bank, int64_t start, int64_t n) {
        return pad(theta_ + start, 1, n, w_.spare + bank * longest());
    }

    float* piece(int64_t bank) { return w_.pieces + bank * longest(); }
    int64_t longest() const { return s_.ld > padded(m_.classes) ? s_.ld : padded(m_.classes); }
    int64_t place(int64_t layer, int64_t part) const { return m_.places[layer * NUM_PARTS + part]; }
    bool has(int64_t layer, int64_t part) const { return place(layer, part) >= 0; }
    int64_t end(int64_t bank) const { return m_.ends[bank - NUM_PARTS]; }
    float* stream(int64_t layer) { return w_.x + (keeps_ ? layer : layer % 2) * s_.size(); }
    float* kept(float* all, int64_t layer) { return all + (keeps_ ? layer : 0) * s_.size(); }
    float* statistics(int64_t layer, int64_t which) {
        return w_.statistics + (keeps_ ? 3 * layer + which : which) * 2 * s_.batch;
    }
    float* end_statistics(int64_t which) { return w_.statistics + (3 * m_.depth + which) * 2 * s_.batch; }

    const Model& m_;
    Shape s_;
    Work w_;
    const float* theta_;
    bool keeps_;
};

extern "C" {

// Floats of memory that the passes of a batch of so many need.
int64_t stresstest_floats(const Model* model, int64_t batch) { return Work(*model, batch, nullptr).floats; }

// The loss of each replica, [R]; nothing changes.
void stresstest_losses(const Model* model, const Rows* rows, const Batch* batch, float* work, float* loss_R) {
    for (int64_t r = 0; r < batch->replicas; ++r)
        loss_R[r] = Passes(*model, batch->size, work, rows->at(r).theta, false).loss(*batch, r);
}

// Losses and gradients, and with an update (which may be null) the whole step.
void stresstest_step(
    const Model* model, const Update* update, const Rows* rows, const Batch* batch, float* work, float* loss_R,
    float* grad_norm_R, float* parameter_sum_R
) {
    for (int64_t r = 0; r < batch->replicas; ++r) {
        Passes passes(*model, batch->size, work, rows->at(r).theta, true);
        Taker taker(rows->at(r), update, model->banks, r, update ? update->kind : KEEP);
        loss_R[r] = passes.loss(*batch, r);
        passes.backward(*batch, r, taker);
        grad_norm_R[r] = taker.grad_norm();
        parameter_sum_R[r] = taker.parameter_sum();
    }
}

// The norm of each gradient, or with an update (which may be null) that update: the second half of a step.
void stresstest_update(
    const Model* model, const Update* update, const Rows* rows, int64_t replicas, float* grad_norm_R,
    float* parameter_sum_R
) {
    for (int64_t r = 0; r < replicas; ++r) {
        const Row row = rows->at(r);
        Taker taker(row, update, model->banks, r, update ? update->kind : MEASURE);
        over_all(*model, [&](int64_t start, int64_t n, int64_t bank) { taker.take(start, n, bank, row.grad + start); });
        grad_norm_R[r] = taker.grad_norm();
        parameter_sum_R[r] = taker.parameter_sum();
    }
}

}  // extern "C"
