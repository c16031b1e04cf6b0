// One launch turns uint8 BGR images into rows of a float batch: scaled with the aspect kept, bordered, in the model's
// channel order and layout, normalised. The arithmetic of the scaling is OpenCV's for INTER_LINEAR on uint8 (weights of 11
// bits, resize.cpp), so that the GPU sees the pixels that the processor would make. Compile without fused multiply-add.
//
// Also compiled for the processor, with blockIdx, blockDim and threadIdx as variables, by tests/backends/cuda/test_letterbox.py.

struct Letterbox {
    const unsigned char *source;    // first image, (h, w, 3) BGR, rows without gaps
    float *target;                  // first row of the batch that is written
    long long source_step;          // bytes from image to image
    long long target_step;          // floats from image to image
    double scale_x, scale_y;        // source pixels per target pixel
    int source_w, source_h;
    int target_w, target_h;
    int inner_w, inner_h;           // size of the scaled image in the target
    int pad_x, pad_y;               // its left top corner there
    int pad_value;
    int is_rgb;                     // the model wants R first
    int is_planar;                  // the model wants (3, h, w)
    float mean[3], factor[3];       // (pixel - mean) * factor, in the model's channel order
};

struct Tap {
    int first, second;              // the two source pixels, equal at the borders
    int first_weight, second_weight; // of 2048
};

__device__ static Tap tap_of(int position, double scale, int size) {
    float exact = (float)((position + 0.5) * scale - 0.5);
    int first = (int)floorf(exact);
    float fraction = exact - first;
    if (first < 0) { first = 0; fraction = 0.0f; }
    if (first >= size - 1) { first = size - 1; fraction = 0.0f; }
    Tap tap;
    tap.first = first;
    tap.second = first + 1 < size ? first + 1 : first;
    tap.first_weight = (int)rintf((1.0f - fraction) * 2048.0f);
    tap.second_weight = (int)rintf(fraction * 2048.0f);
    return tap;
}

extern "C" __global__ void letterbox(const Letterbox box) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= box.target_w || y >= box.target_h) return;
    const unsigned char *source = box.source + blockIdx.z * box.source_step;
    float *target = box.target + blockIdx.z * box.target_step;

    int inner_x = x - box.pad_x, inner_y = y - box.pad_y;
    bool is_inside = inner_x >= 0 && inner_x < box.inner_w && inner_y >= 0 && inner_y < box.inner_h;
    int pixel[3] = {box.pad_value, box.pad_value, box.pad_value};
    if (is_inside) {
        Tap column = tap_of(inner_x, box.scale_x, box.source_w);
        Tap row = tap_of(inner_y, box.scale_y, box.source_h);
        const unsigned char *upper = source + (long long)row.first * box.source_w * 3;
        const unsigned char *lower = source + (long long)row.second * box.source_w * 3;
        for (int channel = 0; channel < 3; ++channel) {
            int left = column.first * 3 + channel, right = column.second * 3 + channel;
            int above = upper[left] * column.first_weight + upper[right] * column.second_weight;
            int below = lower[left] * column.first_weight + lower[right] * column.second_weight;
            pixel[channel] = (((row.first_weight * (above >> 4)) >> 16) + ((row.second_weight * (below >> 4)) >> 16) + 2) >> 2;
        }
    }
    for (int channel = 0; channel < 3; ++channel) {
        float value = (float)pixel[box.is_rgb ? 2 - channel : channel];
        long long plane = (long long)box.target_w * box.target_h;
        long long place = (long long)y * box.target_w + x;
        long long index = box.is_planar ? channel * plane + place : place * 3 + channel;
        target[index] = (value - box.mean[channel]) * box.factor[channel];
    }
}
