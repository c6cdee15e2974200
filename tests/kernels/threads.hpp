// CUDA C++ on the host: the blocks of a grid one after the other, the threads of a block as threads
// that wait for each other where the kernel says so.
#include <barrier>
#include <cmath>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

using std::exp, std::fmax, std::isfinite, std::min;

struct Index { int x; };
static thread_local Index threadIdx;
static Index blockIdx, blockDim, gridDim;
static double shared[1 << 16];
static std::mutex one_at_a_time;
static std::barrier<>* everyone;
static int any;

#define __global__
#define __device__ static
#define __shared__

static void __syncthreads() { everyone->arrive_and_wait(); }

static int __syncthreads_or(int mine) {
  if (mine) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    any = 1;
  }
  __syncthreads();
  int found = any;
  __syncthreads();
  if (threadIdx.x == 0) any = 0;
  __syncthreads();
  return found;
}

// lanes of a warp read each other's values
static double exchanged[1024];

static double read_lane(double value, int thread) {
  exchanged[threadIdx.x] = value;
  __syncthreads();
  double found = exchanged[thread];
  __syncthreads();
  return found;
}

static double __shfl_xor_sync(unsigned, double value, int mask) {
  return read_lane(value, threadIdx.x ^ mask);
}

static double __shfl_up_sync(unsigned, double value, int distance) {
  return read_lane(value, threadIdx.x % 32 >= distance ? threadIdx.x - distance : threadIdx.x);
}

static double __shfl_sync(unsigned, double value, int lane) {
  return read_lane(value, threadIdx.x / 32 * 32 + lane);
}

static void atomicMin(int* at, int value) {
  std::lock_guard<std::mutex> lock(one_at_a_time);
  *at = min(*at, value);
}
