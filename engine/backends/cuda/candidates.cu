// One launch takes a raw head, (images, rows, anchors) with one row of scores per class, and keeps the anchors whose best
// score is above a threshold, with two rows, the best score and its class, in place of the scores. In no order: the host
// sorts the few that are kept by their anchor. What does not fit is counted and left out, and the host takes the head.
//
// Also compiled for the processor by tests/backends/cuda/test_candidates.py.

struct Candidates {
    const float *head;              // first image
    int *counts;                    // one per image, zero before the launch: anchors above, also those that did not fit
    float *kept;                    // (images, limit, 1 + merged rows): number of the anchor, then its rows
    int rows, anchors;              // of the head
    int first, classes;             // where its scores are
    int limit;                      // places per image
    float above;
};

extern "C" __global__ void candidates(const Candidates task) {
    int anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= task.anchors) return;
    long long step = task.anchors;
    const float *column = task.head + (long long)blockIdx.z * task.rows * step + anchor;
    const float *scores = column + task.first * step;
    float best = scores[0];
    int best_class = 0;
    bool is_number = best == best;
    for (int index = 1; index < task.classes; ++index) {
        float score = scores[index * step];
        is_number = is_number && score == score;
        if (score > best) { best = score; best_class = index; }
    }
    if (!is_number || !(best > task.above)) return;
    int place = atomicAdd(task.counts + blockIdx.z, 1);
    if (place >= task.limit) return;
    int rest = task.first + task.classes;
    int width = 1 + task.rows - task.classes + 2;
    float *kept = task.kept + ((long long)blockIdx.z * task.limit + place) * width;
    *kept++ = (float)anchor;
    for (int row = 0; row < task.first; ++row) *kept++ = column[row * step];
    *kept++ = best;
    *kept++ = (float)best_class;
    for (int row = rest; row < task.rows; ++row) *kept++ = column[row * step];
}
