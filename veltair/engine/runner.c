/* Runs a unit, which is the kernel calls of some consecutive blocks, without going back to Python between them.
 *
 * A call may be one part of a kernel: its share of the kernel's last parallel loop. A long kernel so becomes several calls,
 * between which a request can be set aside, from the same code. What the loops before that one make (the input in another
 * form, say) is made by the first part, and kept in the request's arena for the others, which may run on other threads.
 *
 * The compiler links this file into every bundle's blocks.so. It declares the little it needs of TVM's C interface
 * itself (a kernel is a TVMFFISafeCallType, see tvm/ffi/c_api.h), so that it compiles without any header of TVM.
 */
#include <stddef.h>
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
  const veltair_any* args; /* if before > 0, one more than num_args: the memory for what the kernel keeps between its loops */
  int16_t num_args;
  int16_t before; /* parallel loops before the one that is shared: run by the part whose first is 0, left out by others */
  int32_t first;  /* of the parallel loop's `extent` iterations, runs first <= i < end; all of them if extent is 0 */
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

typedef void* (*veltair_alloc)(int device_type, int device_id, uint64_t bytes, int dtype_code, int dtype_bits);
typedef int (*veltair_free)(int device_type, int device_id, void* memory);

/* Filled in by TVM when it loads the library; absent from a library without any parallel loop, or without large arrays. */
extern __attribute__((weak)) veltair_launch __TVMBackendParallelLaunch;
extern __attribute__((weak)) veltair_alloc __TVMBackendAllocWorkspace;
extern __attribute__((weak)) veltair_free __TVMBackendFreeWorkspace;

static veltair_launch launch_all;
static veltair_alloc alloc_any;
static veltair_free free_any;
static _Thread_local const veltair_call* current; /* on the thread that runs the unit, outside of parallel loops */
static _Thread_local int32_t launched;            /* loops of the current call so far */
static _Thread_local uint64_t kept;               /* bytes that the current call has of its args' last one */

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
  const veltair_call* call = current;
  veltair_share share = {task, data, call};
  int code;
  if (call == 0 || call->extent == 0) return launch_all(task, data, num_task);
  if (launched++ < call->before) {
    if (call->first > 0) return 0;
    current = 0; /* this thread runs tasks too, and what they allocate is theirs */
    code = launch_all(task, data, num_task);
  } else {
    current = 0;
    code = launch_all(run_share, &share, num_task);
  }
  current = call;
  return code;
}

/* What a kernel allocates outside of its loops is to outlive the part: the same places of the same memory in every one. */
static void* alloc_kept(int device_type, int device_id, uint64_t bytes, int dtype_code, int dtype_bits) {
  const veltair_any* memory;
  if (current == 0 || current->before == 0) return alloc_any(device_type, device_id, bytes, dtype_code, dtype_bits);
  memory = &current->args[current->num_args];
  bytes = (bytes + 63) / 64 * 64;
  if (kept + bytes > memory->zero_padding) return NULL;
  kept += bytes;
  return (char*)memory->value + kept - bytes;
}

static int free_kept(int device_type, int device_id, void* memory) {
  return current == 0 || current->before == 0 ? free_any(device_type, device_id, memory) : 0;
}

/* To be called once TVM has loaded the library, before anything runs. */
__attribute__((visibility("default"))) void veltair_prepare(void) {
  if (&__TVMBackendParallelLaunch != 0 && __TVMBackendParallelLaunch != launch_share) {
    launch_all = __TVMBackendParallelLaunch;
    __TVMBackendParallelLaunch = launch_share;
  }
  if (&__TVMBackendAllocWorkspace != 0 && __TVMBackendAllocWorkspace != alloc_kept) {
    alloc_any = __TVMBackendAllocWorkspace;
    free_any = __TVMBackendFreeWorkspace;
    __TVMBackendAllocWorkspace = alloc_kept;
    __TVMBackendFreeWorkspace = free_kept;
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
      launched = 0;
      kept = 0;
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
