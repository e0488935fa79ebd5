/* quant.h: the quantizer as engine/calibrate.c sees it. */
#ifndef SDX_QUANT_QUANT_H
#define SDX_QUANT_QUANT_H

#include "../base/tensor.h"

/* Rows that a value of the graph held in runs of the float model. */
typedef struct sdx_quant_sample {
    const char *name; /* of the value */
    int64_t rows, width;
    const float *x; /* [rows, width] */
} sdx_quant_sample;

/* The recipe that the options choose makes use of samples. */
bool sdx_quantize_wants_samples(const sdx_quantize_options *options);
/* sdx_quantize with what is known of activations; n_sample may be 0. */
sdx_status sdx_quantize_sampled(const sdx_quantize_options *options, const sdx_quant_sample *sample, size_t n_sample,
                                sdx_quantize_report *report, sdx_error *err);

#endif
