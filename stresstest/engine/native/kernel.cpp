// What Python calls: losses, steps and updates of residual MLPs, one replica after the other.
#include "passes.h"

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
