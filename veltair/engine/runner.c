/* Runs a unit, which is the kernel calls of some consecutive blocks, without going back to Python between them.
 *
 * A call may be one part of a kernel: its share of the one parallel loop that the kernel consists of. A long kernel so
 * becomes several calls, between which a request can be set aside, from the same code.
 *
 * The compiler links this file into every bundle's blocks.so. It declares the little it needs of TVM's C interface
 * itself (a kernel is a TVMFFISafeCallType, see tvm/ffi/c_api.h), so that it compiles without any header of TVM.
 */
#include <stdint.h>
#include <time.h>

typedef struct {
  int32_t type_index;
  uint32_t zero_padding;
  void* value;
} veltair_any; /* TVMFFIAny */

typedef int (*veltair_kernel)(void* self, const veltair_any* args, int32_t num_args, veltair_any* result);

typedef struct {
  veltair_kernel kernel;
  const veltair_any* args;
  int32_t num_args;
  int32_t first; /* of the parallel loop's `extent` iterations, runs first <= i < end; all of them if extent is 0 */
  int32_t end;
  int32_t extent;
} veltair_call;

typedef struct {
  const veltair_call* calls;
  int64_t num_calls;
} veltair_block; /* one variant of one block, bound to an arena */

/* TVM's interface for parallel loops, see tvm/runtime/c_backend_api.h: the loop is cut evenly into num_task ranges. */
typedef struct {
  void* sync_handle;
  int32_t num_task;
} veltair_group;

typedef int (*veltair_task)(int task_id, veltair_group* group, void* data);
typedef int (*veltair_launch)(veltair_task task, void* data, int num_task);

/* Filled in by TVM when it loads the library; absent from a library without any parallel loop. */
extern __attribute__((weak)) veltair_launch __TVMBackendParallelLaunch;

static veltair_launch launch_all;
static _Thread_local const veltair_call* current;

typedef struct {
  veltair_task task;
  void* data;
  const veltair_call* call;
} veltair_share;

/* A part keeps its iterations on however many cores it runs: told that there are as many tasks as iterations, the loop runs
 * exactly one for each. */
static int run_share(int task_id, veltair_group* group, void* data) {
  const veltair_share* share = data;
  const veltair_call* call = share->call;
  int64_t count = call->end - call->first, workers = group->num_task;
  veltair_group each = {group->sync_handle, call->extent};
  for (int64_t i = count * task_id / workers; i < count * (task_id + 1) / workers; ++i) {
    int code = share->task((int)(call->first + i), &each, share->data);
    if (code != 0) return code;
  }
  return 0;
}

static int launch_share(veltair_task task, void* data, int num_task) {
  veltair_share share = {task, data, current};
  if (current == 0 || current->extent == 0) return launch_all(task, data, num_task);
  return launch_all(run_share, &share, num_task);
}

/* To be called once TVM has loaded the library, before anything runs. */
__attribute__((visibility("default"))) void veltair_prepare(void) {
  if (&__TVMBackendParallelLaunch != 0 && __TVMBackendParallelLaunch != launch_share) {
    launch_all = __TVMBackendParallelLaunch;
    __TVMBackendParallelLaunch = launch_share;
  }
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Runs table[chosen[0]] .. table[chosen[count - 1]] and leaves the time of each in block_ns. Returns 0, or what the first
 * failing kernel returned; then failed[0] is its place in `chosen` and failed[1] its place among that block's calls. */
__attribute__((visibility("default"))) int veltair_run(const veltair_block* table, const int32_t* chosen, int32_t count,
                                                       int64_t* block_ns, int32_t* failed) {
  int64_t start = now_ns();
  for (int32_t i = 0; i < count; ++i) {
    const veltair_block* block = &table[chosen[i]];
    for (int64_t j = 0; j < block->num_calls; ++j) {
      const veltair_call* call = &block->calls[j];
      veltair_any result = {0, 0, 0};
      current = call;
      int code = call->kernel(0, call->args, call->num_args, &result);
      current = 0;
      if (code != 0) {
        failed[0] = i;
        failed[1] = (int32_t)j;
        return code;
      }
    }
    int64_t end = now_ns();
    block_ns[i] = end - start;
    start = end;
  }
  return 0;
}
