/* sequence.h: values that are not tensors. They travel as an sdx_tensor whose dtype says so:
 *
 *   SDX_TENSOR_LIST  data points to an sdx_tensor_list
 *   SDX_NOTHING   an optional that holds nothing; one that holds something is that something
 *
 * A value made by an operator lies in one block, whatever it is, so that ownership is that of a tensor's data:
 *
 *   [ sdx_tensor_list | item[count] | data of item 0 | data of item 1 | ... ]      each part on a cache line
 */
#ifndef SDX_BASE_SEQUENCE_H
#define SDX_BASE_SEQUENCE_H

#include "tensor.h"

static inline bool sdx_dtype_is_tensor(sdx_dtype t) { return t != SDX_TENSOR_LIST && t != SDX_NOTHING; }

/* A view of items that lie elsewhere. */
static inline sdx_tensor sdx_sequence_view(const sdx_tensor_list *sequence)
{
    return (sdx_tensor){.dtype = SDX_TENSOR_LIST, .data = (void *)sequence};
}

static inline const sdx_tensor_list *sdx_tensor_sequence(const sdx_tensor *t) { return t->data; }

/* Bytes of the block that holds a copy of the value, the characters of strings included; false on overflow. */
bool sdx_value_size(const sdx_tensor *value, size_t *bytes);
/* The copy; block: SDX_ALIGN-aligned, of that many bytes. */
sdx_tensor sdx_value_copy(const sdx_tensor *value, void *block);

#endif
