/* quant.h: the quantizer as engine/calibrate.c sees it. */
#ifndef SDX_QUANT_QUANT_H
#define SDX_QUANT_QUANT_H

#include "../graph/graph.h"

/* What runs of the float model showed of one of its values. */
typedef struct sdx_quant_sample {
    const char *name;
    int64_t rows, width;
    const float *x;  /* [rows, width]: some of its rows; rows 0 when they have no common width */
    float low, high; /* the range to give it in a static form; low > high: nothing was seen */
} sdx_quant_sample;

/* The form that the options choose makes use of samples. */
bool sdx_quantize_wants_samples(const sdx_quantize_options *options);
/* An operator with a weight that the options want in integers. */
bool sdx_quantize_is_candidate(const sdx_quantize_options *options, const sdx_graph *graph, const sdx_node *n);
/* The value whose samples node n wants, or SDX_NONE. */
sdx_id sdx_quantize_activation(const sdx_quantize_options *options, const sdx_graph *graph, const sdx_node *n);
/* The input of the options, quantized with what is known of activations; n_sample may be 0. The report's table
 * is not made here. */
sdx_status sdx_quantize_model(const sdx_quantize_options *options, const sdx_quant_sample *sample,
                              size_t n_sample,
                              sdx_model **out, sdx_quantize_report *report, sdx_error *err);
sdx_status sdx_quantize_write(const sdx_quantize_options *options, const sdx_model *model,
                              sdx_quantize_report *report,
                              sdx_error *err);

#endif
