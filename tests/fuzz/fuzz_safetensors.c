/* fuzz_safetensors.c: any bytes as a safetensors file. */
#include "fuzz_checkpoint.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    return fuzz_checkpoint(sdx_safetensors_read, data, size);
}
