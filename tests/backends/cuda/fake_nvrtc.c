// A CUDA compiler for the driver in fake_driver.c (-DREFUSES: one that does not know the GPU; -DMAJOR=N: its version), which has our kernels already: its image is what that driver takes.
// NVIDIA's own does not live with a driver made for tests.

#include <string.h>

static const char IMAGE[] = "image of the kernels";
int nvrtcCreateProgram(void **program, const char *source, const char *name, int headers, const char **texts, const char **names) {
    (void)name, (void)headers, (void)texts, (void)names;
    *program = (void *)source;
    return strstr(source, "candidates") && strstr(source, "letterbox") ? 0 : 1;
}
#ifndef MAJOR
#define MAJOR 13
#endif
#ifdef REFUSES
#define COMPILED 5
#else
#define COMPILED 0
#endif
static const char LOG[] = "invalid value for --gpu-architecture";
int nvrtcVersion(int *major, int *minor) { *major = MAJOR, *minor = 0; return 0; }
int nvrtcCompileProgram(void *program, int count, const char **options) {
    (void)program, (void)options;
    return count ? COMPILED : 1;
}
int nvrtcGetProgramLogSize(void *program, size_t *size) { (void)program; *size = sizeof LOG; return 0; }
int nvrtcGetProgramLog(void *program, char *text) { (void)program; memcpy(text, LOG, sizeof LOG); return 0; }
int nvrtcGetCUBINSize(void *program, size_t *size) { (void)program; *size = sizeof IMAGE; return 0; }
int nvrtcGetCUBIN(void *program, char *content) { (void)program; memcpy(content, IMAGE, sizeof IMAGE); return 0; }
int nvrtcDestroyProgram(void **program) { *program = 0; return 0; }
const char *nvrtcGetErrorString(int code) { (void)code; return "an error of the fake compiler"; }
