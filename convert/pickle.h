/* pickle.h: reads the data.pkl of a PyTorch checkpoint without executing anything: a pickle is a program, and
 * this machine knows only the instructions that build dictionaries of tensors. */
#ifndef SDX_CONVERT_PICKLE_H
#define SDX_CONVERT_PICKLE_H

#include "../base/arena.h"
#include "../base/shape.h"

typedef struct sdx_pickle_text {
    const char *data; /* in the pickle, not NUL-terminated */
    size_t length;
} sdx_pickle_text;

/* One entry of the state dictionary: a strided view of a storage, the archive's entry data/<key>. */
typedef struct sdx_pickle_tensor {
    sdx_pickle_text name, storage;
    sdx_dtype dtype;
    int64_t offset; /* elements */
    int rank;
    int64_t dim[SDX_MAX_RANK], stride[SDX_MAX_RANK]; /* >= 0 */
} sdx_pickle_tensor;

/* The tensors of the dictionary that the pickle evaluates to, in its order; other entries are left out. */
sdx_status sdx_pickle_read(sdx_arena *arena, const unsigned char *data, size_t size, sdx_pickle_tensor **out,
                           size_t *count, sdx_error *err);

#endif
