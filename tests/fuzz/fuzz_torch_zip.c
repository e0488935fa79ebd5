/* fuzz_torch_zip.c: any bytes as a pytorch_model.bin; what is accepted must lie inside the file or its copy. */
#include <stdlib.h>

#include "../../convert/checkpoint.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    sdx_checkpoint *c;
    sdx_error err = {0};
    unsigned sum = 0;
    if (sdx_checkpoint_create("fuzz", &c, &err) != SDX_OK) return 0;
    if (sdx_torch_zip_read(c, data, size, &err) != SDX_OK && !err.message[0]) abort();
    for (size_t i = 0; i < c->n_tensor; i++) /* the sanitizer watches the reads */
        for (size_t j = 0, n = sdx_tensor_bytes(&c->tensor[i]); j < n; j++)
            sum += ((const unsigned char *)c->tensor[i].data)[j];
    sdx_checkpoint_close(c);
    return sum == 0xffffffff; /* never: keeps the reads alive */
}
