/* Runs a unit, which is the kernel calls of some consecutive blocks, without going back to Python between them.
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
  int64_t num_args;
} veltair_call;

typedef struct {
  const veltair_call* calls;
  int64_t num_calls;
} veltair_block; /* one variant of one block, bound to an arena */

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
      int code = call->kernel(0, call->args, (int32_t)call->num_args, &result);
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
