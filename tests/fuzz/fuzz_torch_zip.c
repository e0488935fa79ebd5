/* fuzz_torch_zip.c: any bytes as a pytorch_model.bin. */
#include "fuzz_checkpoint.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    return fuzz_checkpoint(sdx_torch_zip_read, data, size);
}
