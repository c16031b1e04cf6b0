// A CUDA driver for machines without a GPU, for tests of the Python packages that call one: memory is the process's own,
// work runs at once, the only kernels are ours. Contexts, handles and frees are checked as the real one does.
// Compiled by tests/backends/cuda/test_api.py behind the kernel's source, which PROLOGUE makes plain C++.

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <set>
#include <vector>
#include <functional>

extern "C" {

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, UNSUPPORTED = 801 };
static std::set<void *> memory, host_memory, handles;
static std::set<void *> *all[] = {&memory, &host_memory, &handles};
typedef std::vector<std::function<void()>> Graph;
static Graph *capture;
static int retained;
static __thread int depth;
static const size_t TOTAL = (size_t)1 << 28;
static size_t used;

#define NEEDS_CONTEXT if (depth == 0) return NO_CONTEXT
static int taken(std::set<void *> &kind, void *thing, void **out) { kind.insert(thing); *out = thing; return OK; }
static int given(std::set<void *> &kind, void *thing) { return kind.erase(thing) ? OK : INVALID_VALUE; }
static void work(std::function<void()> what) { if (capture) capture->push_back(what); else what(); }

int fake_live() { int count = 0; for (auto kind : all) count += kind->size(); return count + retained; }
int fake_depth() { return depth; }
int cuInit(unsigned) { return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int) { *device = 0; return OK; }
int cuDeviceGetName(char *name, int size, int) { strncpy(name, "Fake driver GPU", size); return OK; }
int cuDeviceGetUuid(unsigned char *uuid, int) { memset(uuid, 1, 16); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = TOTAL; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : attribute == 18 ? 0 : 1;
    return OK;
}
int cuGetErrorName(int code, const char **name) { *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR"; return OK; }
int cuGetErrorString(int, const char **text) { *text = "an error of the fake driver"; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int) { ++retained; *context = &retained; return OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return retained-- > 0 ? OK : INVALID_VALUE; }
int cuCtxPushCurrent_v2(void *context) { if (context != &retained) return NO_CONTEXT; ++depth; return OK; }
int cuCtxPopCurrent_v2(void **context) { NEEDS_CONTEXT; --depth; if (context) *context = &retained; return OK; }
int cuCtxGetCurrent(void **context) { *context = depth ? &retained : 0; return OK; }
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return OK; }

int cuMemAlloc_v2(void **address, size_t size) {
    NEEDS_CONTEXT;
    if (used + size > TOTAL) return OUT_OF_MEMORY;
    used += size;
    char *block = (char *)malloc(size + 16);
    *(size_t *)block = size;
    return taken(memory, block + 16, address);
}
int cuMemFree_v2(void *address) {
    NEEDS_CONTEXT;
    int code = given(memory, address);
    if (code == OK) { used -= *(size_t *)((char *)address - 16); free((char *)address - 16); }
    return code;
}
int cuMemGetInfo_v2(size_t *available, size_t *total) { NEEDS_CONTEXT; *available = TOTAL - used; *total = TOTAL; return OK; }
int cuMemHostAlloc(void **address, size_t size, unsigned) { NEEDS_CONTEXT; return taken(host_memory, malloc(size), address); }
int cuMemFreeHost(void *address) { NEEDS_CONTEXT; int code = given(host_memory, address); if (!code) free(address); return code; }
int cuMemHostGetDevicePointer_v2(void **device, void *address, unsigned) { NEEDS_CONTEXT; *device = address; return OK; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
    NEEDS_CONTEXT;
    if (!handles.count(stream)) return INVALID_VALUE;
    work([=] { memcpy(to, from, size); });
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *stream) { return cuMemcpyHtoDAsync_v2(to, from, size, stream); }
int cuStreamCreate(void **stream, unsigned) { NEEDS_CONTEXT; return taken(handles, malloc(1), stream); }
int cuStreamDestroy_v2(void *stream) { NEEDS_CONTEXT; return given(handles, stream); }
int cuStreamSynchronize(void *stream) { NEEDS_CONTEXT; return handles.count(stream) ? OK : INVALID_VALUE; }
static unsigned event_flags;
int fake_event_flags() { return event_flags; }
int cuEventCreate(void **event, unsigned flags) { NEEDS_CONTEXT; event_flags = flags; return taken(handles, malloc(1), event); }
int cuEventDestroy_v2(void *event) { NEEDS_CONTEXT; return given(handles, event); }
int cuEventRecord(void *event, void *stream) { NEEDS_CONTEXT; return handles.count(event) && handles.count(stream) ? OK : INVALID_VALUE; }
int cuEventSynchronize(void *event) { NEEDS_CONTEXT; return handles.count(event) ? OK : INVALID_VALUE; }

int cuModuleLoadData(void **module, const void *image) {
    NEEDS_CONTEXT;
    return memcmp(image, "image", 5) ? 200 : taken(handles, malloc(1), module);
}
int cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) { return cuModuleLoadData(module, image); }
int cuModuleUnload(void *module) { NEEDS_CONTEXT; return given(handles, module); }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    NEEDS_CONTEXT;
    if (!handles.count(module)) return NOT_FOUND;
    *function = !strcmp(name, "letterbox") ? (void *)&letterbox : !strcmp(name, "letterbox_planes") ? (void *)&letterbox_planes
        : !strcmp(name, "candidates") ? (void *)&candidates : 0;
    return *function ? OK : NOT_FOUND;
}
int cuFuncSetBlockShape(void *, int, int, int) { NEEDS_CONTEXT; return OK; }
} template <class Parameter> static int launch(void (*run)(const Parameter *, int, int, int, int, int), unsigned gx, unsigned gy,
                                             unsigned gz, unsigned bx, unsigned by, void **parameters, void **extra) {
    Parameter given;
    if (parameters) memcpy(&given, parameters[0], sizeof given);
    else if (extra && extra[0] == (void *)1 && extra[2] == (void *)2 && *(size_t *)extra[3] >= sizeof given - 7)
        memcpy(&given, extra[1], sizeof given);
    else return INVALID_VALUE;
    work([=] { run(&given, gz, gx, gy, bx, by); });
    return OK;
}
extern "C" {
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned, unsigned,
                   void *stream, void **parameters, void **extra) {
    NEEDS_CONTEXT;
    if (!handles.count(stream)) return INVALID_VALUE;
    if (function == (void *)&letterbox) return launch(&run_letterbox, gx, gy, gz, bx, by, parameters, extra);
    if (function == (void *)&letterbox_planes) return launch(&run_letterbox_planes, gx, gy, gz, bx, by, parameters, extra);
    if (function == (void *)&candidates) return launch(&run_candidates, gx, gy, gz, bx, by, parameters, extra);
    return INVALID_VALUE;
}

int cuStreamBeginCapture_v2(void *stream, int) { NEEDS_CONTEXT; if (!handles.count(stream)) return INVALID_VALUE; capture = new Graph; return OK; }
int cuStreamEndCapture(void *stream, void **graph) {
    NEEDS_CONTEXT;
    if (!capture || !handles.count(stream)) return INVALID_VALUE;
    Graph *done = capture;
    capture = 0;
    return taken(handles, done, graph);
}
int cuGraphInstantiateWithFlags(void **ready, void *graph, unsigned long long) { NEEDS_CONTEXT; return taken(handles, new Graph(*(Graph *)graph), ready); }
int cuGraphDestroy(void *graph) { NEEDS_CONTEXT; return given(handles, graph); }
int cuGraphExecDestroy(void *graph) { NEEDS_CONTEXT; return given(handles, graph); }
int cuGraphLaunch(void *graph, void *stream) {
    NEEDS_CONTEXT;
    if (!handles.count(graph) || !handles.count(stream)) return INVALID_VALUE;
    for (auto &what : *(Graph *)graph) what();
    return OK;
}

int cuGetProcAddress_v2(const char *name, void **function, int, unsigned long long, int *status) {
    static void *self = dlopen("libcuda.so.1", RTLD_NOW);
    char versioned[200];
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *function = dlsym(self, versioned);
    if (!*function) *function = dlsym(self, name);
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}

}
