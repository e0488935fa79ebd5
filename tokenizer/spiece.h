/* spiece.h: a SentencePiece model file, read with protobuf-c. */
#ifndef SDX_TOKENIZER_SPIECE_H
#define SDX_TOKENIZER_SPIECE_H

#include "sentencepiece.pb-c.h"

#include "tokenizer.h"

/* The caller frees it by spm__model__free_unpacked(model, NULL). */
sdx_status sdx_spiece_open(const char *path, Spm__Model **out, sdx_error *err);

/* The merges of a BPE model from its pieces; score: [count], by id. The texts stay the vocabulary's. */
sdx_status sdx_spiece_merges(const sdx_vocab *vocab, const double *score, size_t count, sdx_merge_list *out,
                             sdx_error *err);

#endif
