/* fuzz_checkpoint.h: any bytes as a file of weights: a refusal says why, and what is accepted lies inside the file or a
 * copy of it, which the sanitizer sees as every byte is read. */
#ifndef SDX_FUZZ_CHECKPOINT_H
#define SDX_FUZZ_CHECKPOINT_H

#include <stdlib.h>

#include "../../convert/checkpoint.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static int fuzz_checkpoint(sdx_status (*read)(sdx_checkpoint *, const unsigned char *, size_t, sdx_error *),
                           const unsigned char *data, size_t size)
{
    sdx_checkpoint *c;
    sdx_error err = {0};
    unsigned sum = 0;
    if (sdx_checkpoint_create("fuzz", &c, &err) != SDX_OK) return 0;
    if (read(c, data, size, &err) != SDX_OK && !err.message[0]) abort();
    for (size_t i = 0; i < c->n_tensor; i++)
        for (size_t j = 0, n = sdx_tensor_bytes(&c->tensor[i]); j < n; j++)
            sum += ((const unsigned char *)c->tensor[i].data)[j];
    sdx_checkpoint_close(c);
    return sum == 0xffffffff; /* never: keeps the reads alive */
}

#endif
