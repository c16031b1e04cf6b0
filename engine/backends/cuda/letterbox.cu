// One launch turns uint8 images into rows of a batch of floats or halves: scaled with the aspect kept, bordered, in the model's
// channel order and layout, normalised. The arithmetic of the scaling is OpenCV's for INTER_LINEAR on uint8 (weights of 11
// bits, resize.cpp), so that the GPU sees the pixels that the processor would make. Compile without fused multiply-add.
// `letterbox` reads BGR, `letterbox_planes` the planes of a decoder, which are half as many bytes.
//
// Also compiled for the processor, with blockIdx, blockDim and threadIdx as variables, by tests/backends/cuda/test_letterbox.py.

#if defined(__CUDA_ARCH__) && !defined(SHARES_TAPS)
#define SHARES_TAPS
#endif

struct Letterbox {
    const unsigned char *source;    // first image, (h, w, 3) BGR or its planes, rows without gaps
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

// The luma plane lies at `source`, the chroma of 2 x 2 pixels behind it: two planes, or one of pairs (NV12).
struct Planes {
    Letterbox box;
    long long u, v;                 // bytes from the start of an image to its first U and V
    int chroma_w;                   // values of U in a row
    int chroma_step;                // bytes from one U of a row to the next, and so for V
    int luma_offset, luma_gain;     // gains are of 65536
    int blue_u, green_u, green_v, red_v;
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

struct Place {
    int x, y;                       // of a thread's pixel in the target
    bool is_in_target, is_inside;   // inside the scaled image
    Tap column, row;
};

__device__ static Place place_of(const Letterbox &box) {
    Place place;
    place.x = blockIdx.x * blockDim.x + threadIdx.x;
    place.y = blockIdx.y * blockDim.y + threadIdx.y;
    int inner_x = place.x - box.pad_x, inner_y = place.y - box.pad_y;
#ifdef SHARES_TAPS
    __shared__ Tap columns[MOST_COLUMNS], rows[MOST_ROWS];
    if (threadIdx.y == 0) columns[threadIdx.x] = tap_of(inner_x, box.scale_x, box.source_w);
    if (threadIdx.x == 0) rows[threadIdx.y] = tap_of(inner_y, box.scale_y, box.source_h);
    __syncthreads();
    place.column = columns[threadIdx.x];
    place.row = rows[threadIdx.y];
#else
    place.column = tap_of(inner_x, box.scale_x, box.source_w);
    place.row = tap_of(inner_y, box.scale_y, box.source_h);
#endif
    place.is_in_target = place.x < box.target_w && place.y < box.target_h;
    place.is_inside = inner_x >= 0 && inner_x < box.inner_w && inner_y >= 0 && inner_y < box.inner_h;
    return place;
}

__device__ static int blended(const Place &place, int upper_left, int upper_right, int lower_left, int lower_right) {
    int above = upper_left * place.column.first_weight + upper_right * place.column.second_weight;
    int below = lower_left * place.column.first_weight + lower_right * place.column.second_weight;
    return (((place.row.first_weight * (above >> 4)) >> 16) + ((place.row.second_weight * (below >> 4)) >> 16) + 2) >> 2;
}

__device__ static void write(const Letterbox &box, const Place &at, const int pixel[3]) {
    for (int channel = 0; channel < 3; ++channel) {
        float value = (float)pixel[box.is_rgb ? 2 - channel : channel];
        long long plane = (long long)box.target_w * box.target_h;
        long long place = (long long)at.y * box.target_w + at.x;
        long long index = blockIdx.z * box.target_step + (box.is_planar ? channel * plane + place : place * 3 + channel);
        float number = (value - box.mean[channel]) * box.factor[channel];
        if (box.is_half) ((unsigned short *)box.target)[index] = half_of(number);
        else ((float *)box.target)[index] = number;
    }
}

extern "C" __global__ void letterbox(const Letterbox box) {
    Place place = place_of(box);
    if (!place.is_in_target) return;
    const unsigned char *source = box.source + blockIdx.z * box.source_step;
    int pixel[3] = {box.pad_value, box.pad_value, box.pad_value};
    if (place.is_inside) {
        const unsigned char *upper = source + (long long)place.row.first * box.source_w * 3;
        const unsigned char *lower = source + (long long)place.row.second * box.source_w * 3;
        for (int channel = 0; channel < 3; ++channel) {
            int left = place.column.first * 3 + channel, right = place.column.second * 3 + channel;
            pixel[channel] = blended(place, upper[left], upper[right], lower[left], lower[right]);
        }
    }
    write(box, place, pixel);
}

__device__ static int level_of(int value) { // of 65536ths
    int level = (value + 32768) >> 16;
    return level < 0 ? 0 : level > 255 ? 255 : level;
}

// The pixel as FFmpeg makes it from planes: each U and V counts for its 2 x 2 pixels.
__device__ static void to_bgr(const Planes &planes, const unsigned char *source, int x, int y, int pixel[3]) {
    long long chroma = (long long)(y >> 1) * planes.chroma_w * planes.chroma_step + (x >> 1) * planes.chroma_step;
    int luma = (source[(long long)y * planes.box.source_w + x] - planes.luma_offset) * planes.luma_gain;
    int u = source[planes.u + chroma] - 128, v = source[planes.v + chroma] - 128;
    pixel[0] = level_of(luma + planes.blue_u * u);
    pixel[1] = level_of(luma - planes.green_u * u - planes.green_v * v);
    pixel[2] = level_of(luma + planes.red_v * v);
}

extern "C" __global__ void letterbox_planes(const Planes planes) {
    const Letterbox &box = planes.box;
    Place place = place_of(box);
    if (!place.is_in_target) return;
    const unsigned char *source = box.source + blockIdx.z * box.source_step;
    int pixel[3] = {box.pad_value, box.pad_value, box.pad_value};
    if (place.is_inside) {
        int corner[4][3];
        for (int at = 0; at < 4; ++at) {
            int x = at & 1 ? place.column.second : place.column.first, y = at & 2 ? place.row.second : place.row.first;
            to_bgr(planes, source, x, y, corner[at]);
        }
        for (int channel = 0; channel < 3; ++channel)
            pixel[channel] = blended(place, corner[0][channel], corner[1][channel], corner[2][channel], corner[3][channel]);
    }
    write(box, place, pixel);
}
