/* ctc.h: the tokens in a CTC model's scores (Graves et al. 2006), and when they were spoken. */
#ifndef SDX_TASKS_CTC_H
#define SDX_TASKS_CTC_H

#include "../base/status.h"

/* Tokens without blanks; a token fills the frames [begin, end). */
typedef struct sdx_ctc_path {
    size_t count;
    int64_t *id;        /* [count]; owned, as the next two */
    size_t *begin, *end;
} sdx_ctc_path;

void sdx_ctc_path_free(sdx_ctc_path *path);
/* The best token of each frame, runs taken once, blanks left out. logits: [frames, tokens] */
sdx_status sdx_ctc_greedy(const float *logits, size_t frames, size_t tokens, int64_t blank, sdx_ctc_path *out,
                          sdx_error *err);
/* The most probable token sequence of those that `beams` beams find, over all its alignments. */
sdx_status sdx_ctc_beam(const float *logits, size_t frames, size_t tokens, int64_t blank, size_t beams,
                        sdx_ctc_path *out, sdx_error *err);

#endif
