/* word_level.c: WordLevel: a piece is a token or unknown. */
#include "tokenizer.h"

sdx_status sdx_word_level_run(const sdx_model_step *model, const sdx_vocab *vocab, sdx_scratch *s,
                              sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        int32_t id = piece.id;
        if (id < 0) id = sdx_trie_get(&vocab->trie, s->now.text + piece.begin, piece.end - piece.begin);
        if (id < 0) id = model->unknown_id;
        if (id < 0) {
            return sdx_fail(err, SDX_ERR_FILE,
                            "a word is not in the vocabulary, nor is the unknown token \"%.60s\"",
                            model->unknown.data);
        }
        TRY(sdx_id_add(s, id, err));
    }
    return SDX_OK;
}
