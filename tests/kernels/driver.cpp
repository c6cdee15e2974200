// NVIDIA's driver with the host as its device: memory is the host's, and the one kernel that it can
// launch is `choose`, by `run` of the kernel's host build. While the stream records, copies between
// device memory and launches are kept for `cuGraphLaunch` and not run. Memory is limited.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

extern "C" void run(int blocks, int threads, const float*, const float*, const double*, long long*,
                    double*, int, int, int);

using Work = std::vector<std::function<void()>>;
static const size_t ROOM = 1 << 26;
static const int OUT_OF_MEMORY = 2, INVALID = 1;
static bool recording = false;
static Work recorded;
static bool current = false;

static void queue(std::function<void()> work) {
  if (recording) recorded.push_back(work); else work();
}

extern "C" {
int cuInit(unsigned) { return 0; }
int cuDeviceGet(int* device, int number) { *device = number; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuDevicePrimaryCtxRetain(void** context, int) { *context = (void*)0x1234567890; return 0; }
int cuCtxSetCurrent(void* context) { current = context == (void*)0x1234567890; return !current; }
int cuDeviceGetDefaultMemPool(void** pool, int) { *pool = (void*)0x2; return 0; }
int cuMemPoolSetAttribute(void*, int, unsigned long long*) { return 0; }
int cuStreamCreate(void** stream, unsigned) { *stream = (void*)0x7777777777; return 0; }
int cuStreamSynchronize(void* stream) { return stream != (void*)0x7777777777 || recording; }
int cuMemAllocAsync(void** address, size_t size, void*) {
  if (size > ROOM) return OUT_OF_MEMORY;
  *address = malloc(size);
  return !current;
}
int cuMemFreeAsync(void* address, void*) {
  if (recording) abort();
  free(address);
  return 0;
}
int cuMemcpyHtoDAsync_v2(void* to, void* from, size_t size, void*) {
  if (recording) return INVALID;
  memcpy(to, from, size);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, void* from, size_t size, void*) {
  if (recording) return INVALID;
  memcpy(to, from, size);
  return 0;
}
int cuMemcpyDtoDAsync_v2(void* to, void* from, size_t size, void*) {
  queue([=] { memcpy(to, from, size); });
  return 0;
}
int cuStreamBeginCapture_v2(void*, int) { recording = true; recorded.clear(); return 0; }
int cuStreamEndCapture(void*, void** graph) {
  recording = false;
  *graph = new Work(recorded);
  return 0;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  *executable = new Work(*(Work*)graph);
  return 0;
}
int cuGraphLaunch(void* executable, void*) {
  for (auto& work : *(Work*)executable) work();
  return 0;
}
int cuGraphDestroy(void* graph) { delete (Work*)graph; return 0; }
int cuGraphExecDestroy(void* executable) { delete (Work*)executable; return 0; }
int cuModuleLoadData(void** module, const char*) { *module = (void*)0x3; return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  *function = (void*)0x4;
  return strcmp(name, "choose") != 0;
}
int cuLaunchKernel(void*, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned, void*, void** p, void**) {
  auto logits = *(float**)p[0]; auto uniform = *(float**)p[1]; auto settings = *(double**)p[2];
  auto tokens = *(long long**)p[3]; auto scratch = *(double**)p[4];
  int rows = *(int*)p[5], vocab = *(int*)p[6], padded = *(int*)p[7];
  queue([=] {
    run(blocks, threads, logits, uniform, settings, tokens, scratch, rows, vocab, padded);
  });
  return 0;
}
int cuGetErrorString(int, const char** message) { *message = "invalid argument"; return 0; }
}
