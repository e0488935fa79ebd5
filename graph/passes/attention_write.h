/* attention_write.h: what fuse_attention.c has others make for the operators that it writes. */
#ifndef SDX_PASSES_ATTENTION_WRITE_H
#define SDX_PASSES_ATTENTION_WRITE_H

#include "attention.h"
#include "passes.h"

typedef struct sdx_packing {
    sdx_projection p[3];
    sdx_id weight, bias; /* [in, 3 out], [3 out] */
    const struct sdx_packing *next;
} sdx_packing;

typedef struct sdx_attention_writer {
    sdx_pass_context *context;
    sdx_graph *g;
    const sdx_packing *packed; /* made so far */
} sdx_attention_writer;

/* The three weights side by side (pack_qkv.c). */
sdx_status sdx_attention_pack(sdx_attention_writer *w, const sdx_projection p[3], const sdx_packing **out);

/* Masks are added like everything else where they cannot be handed over as masks. */
bool sdx_attention_adds_masks(const sdx_attention_writer *w, const sdx_attention *m, bool takes_mask);
bool sdx_attention_is_added(const sdx_attention *m, int term, bool with_masks);
/* Everything that is added to the scores, or SDX_NONE: for com.microsoft's operators, which may take a mask (one that
 * becomes part of the bias is no longer m's), and for ONNX's (attention_bias.c). */
sdx_status sdx_attention_bias(sdx_attention_writer *w, sdx_attention *m, bool takes_mask, sdx_id *bias);
sdx_status sdx_attention_standard_bias(sdx_attention_writer *w, const sdx_attention *m, sdx_id *bias);

#endif
