/* synthetic.h: checkpoints of random weights for any configuration that can be converted: full-size tests and
 * benchmarks without a download. */
#ifndef SDX_CONVERT_SYNTHETIC_H
#define SDX_CONVERT_SYNTHETIC_H

#include <stdint.h>

#include "../base/status.h"

typedef struct sdx_synthetic_options {
    const char *config; /* config.json, or a folder that holds one */
    const char *folder; /* made if absent */
    uint64_t seed;
    sdx_dtype dtype; /* SDX_F32, SDX_F16 or SDX_BF16 */
} sdx_synthetic_options;

/* Writes config.json, model.safetensors, vocab.txt and tokenizer_config.json. The same options give the same
 * bytes on every machine; memory stays at one buffer whatever the size. */
sdx_status sdx_synthetic_write(const sdx_synthetic_options *options, sdx_error *err);

#endif
