/* spiece.h: a SentencePiece model file, read with protobuf-c. */
#ifndef SDX_TOKENIZER_SPIECE_H
#define SDX_TOKENIZER_SPIECE_H

#include "sentencepiece.pb-c.h"

#include "../base/status.h"

/* The caller frees it by spm__model__free_unpacked(model, NULL). */
sdx_status sdx_spiece_open(const char *path, Spm__Model **out, sdx_error *err);

#endif
