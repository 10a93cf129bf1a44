// What is told of a model, of rows and of a batch, in the structures that abi.py declares again; memory for the passes.
#pragma once
#include "norms.h"
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
        return {
            theta + r * theta_stride,
            grad + r * grad_stride,
            first + r * first_stride,
            second + r * second_stride,
        };
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
    float *x, *embedded, *h, *joined, *statistics;                      // kept for the way back
    float *inputs, *turned, *weights, *gradient, *u, *z, *d, *du, *logits, *pieces, *spare;
    Lanes* open;
    int64_t longest;  // of a vector of parameters, padded
    int64_t floats;

    Work(const Model& m, int64_t batch, float* start) {
        floats = 0;
        const auto some = [&](int64_t n) {
            const int64_t first = floats;
            floats += (n + 15) / 16 * 16;
            return start ? start + first : nullptr;
        };
        const int64_t d_p = padded(m.width), c_p = padded(m.classes), i_p = padded(m.inputs), stream = batch * d_p;
        longest = d_p > c_p ? d_p : c_p;
        x = some((m.depth + 1) * stream);
        embedded = some(stream);
        open = reinterpret_cast<Lanes*>(some(m.num_out < m.depth ? m.depth * stream / VL / 2 + 1 : 0));
        h = some(m.num_out ? m.depth * stream : 0);
        joined = some(m.num_post ? m.depth * stream : 0);
        statistics = some(m.norm != NO_NORM ? (3 * m.depth + 2) * 2 * batch : 0);
        inputs = some(i_p == m.inputs ? 0 : batch * i_p);
        turned = some(m.width * longest);
        weights = some((m.width > m.classes ? m.width : m.classes) * d_p);
        gradient = some(m.width * (i_p > d_p ? i_p : d_p) + m.classes * d_p);
        u = some(stream), z = some(stream), d = some(stream), du = some(stream);
        logits = some(batch * c_p);
        pieces = some(NUM_BANKS * longest);
        spare = some(NUM_BANKS * longest);
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
