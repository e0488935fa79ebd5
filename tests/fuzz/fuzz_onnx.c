/* fuzz_onnx.c: any bytes as a model: read, look at, close. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../graph/graph.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    sdx_model *model;
    sdx_error err = {0};
    char *text;
    void *map =
        size ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : (void *)"";
    if (map == MAP_FAILED) return 0;
    if (size) memcpy(map, data, size);
    if (sdx_onnx_read_mapped("fuzz.onnx", (sdx_file_map){.data = map, .size = size}, &model, &err) != SDX_OK) {
        if (!err.message[0]) abort(); /* every refusal says why */
        return 0;
    }
    for (int json = 0; json < 2; json++)
        if (sdx_model_inspect(model, json, &text, &err) == SDX_OK) free(text);
    sdx_model_close(model);
    return 0;
}
