// One launch turns uint8 BGR images into rows of a batch of floats or halves: scaled with the aspect kept, bordered, in the model's
// channel order and layout, normalised. The arithmetic of the scaling is OpenCV's for INTER_LINEAR on uint8 (weights of 11
// bits, resize.cpp), so that the GPU sees the pixels that the processor would make. Compile without fused multiply-add.
//
// Also compiled for the processor, with blockIdx, blockDim and threadIdx as variables, by tests/backends/cuda/test_letterbox.py.

#if defined(__CUDA_ARCH__) && !defined(SHARES_TAPS)
#define SHARES_TAPS
#endif

struct Letterbox {
    const unsigned char *source;    // first image, (h, w, 3) BGR, rows without gaps
    void *target;                   // first row of the batch that is written
    long long source_step;          // bytes from image to image
    long long target_step;          // numbers from image to image
    double scale_x, scale_y;        // source pixels per target pixel
    int source_w, source_h;
    int target_w, target_h;
    int inner_w, inner_h;           // size of the scaled image in the target
    int pad_x, pad_y;               // its left top corner there
    int pad_value;
    int is_rgb;                     // the model wants R first
    int is_planar;                  // the model wants (3, h, w)
    int is_half;                    // the model wants FP16
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

// IEEE 754 half of a float, rounded to nearest, ties to even; without cuda_fp16.h, which not every NVRTC brings along.
__device__ static unsigned short half_of(float value) {
    union { float number; unsigned bits; } as;
    as.number = value;
    unsigned sign = (as.bits >> 16) & 0x8000u, size = as.bits & 0x7fffffffu;
    if (size >= 0x47800000u) return (unsigned short)(sign | (size > 0x7f800000u ? 0x7e00u : 0x7c00u));
    if (size >= 0x38800000u) return (unsigned short)(sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13));
    as.bits = size; // subnormal: a multiple of 2^-24
    return (unsigned short)(sign | (unsigned)rintf(as.number * 16777216.0f));
}

// A block shares the taps of its columns and rows: small GPUs are slow in double precision.
#define MOST_COLUMNS 32
#define MOST_ROWS 8

extern "C" __global__ void letterbox(const Letterbox box) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    int inner_x = x - box.pad_x, inner_y = y - box.pad_y;
#ifdef SHARES_TAPS
    __shared__ Tap columns[MOST_COLUMNS], rows[MOST_ROWS];
    if (threadIdx.y == 0) columns[threadIdx.x] = tap_of(inner_x, box.scale_x, box.source_w);
    if (threadIdx.x == 0) rows[threadIdx.y] = tap_of(inner_y, box.scale_y, box.source_h);
    __syncthreads();
    Tap column = columns[threadIdx.x], row = rows[threadIdx.y];
#else
    Tap column = tap_of(inner_x, box.scale_x, box.source_w);
    Tap row = tap_of(inner_y, box.scale_y, box.source_h);
#endif
    if (x >= box.target_w || y >= box.target_h) return;
    const unsigned char *source = box.source + blockIdx.z * box.source_step;

    bool is_inside = inner_x >= 0 && inner_x < box.inner_w && inner_y >= 0 && inner_y < box.inner_h;
    int pixel[3] = {box.pad_value, box.pad_value, box.pad_value};
    if (is_inside) {
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
        long long index = blockIdx.z * box.target_step + (box.is_planar ? channel * plane + place : place * 3 + channel);
        float number = (value - box.mean[channel]) * box.factor[channel];
        if (box.is_half) ((unsigned short *)box.target)[index] = half_of(number);
        else ((float *)box.target)[index] = number;
    }
}
