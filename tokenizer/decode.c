/* decode.c: the decoders, and the clean-ups that undo the spaces a word splitter put around punctuation. */
#include <string.h>

#include "tokenizer.h"

typedef struct replacement {
    const char *from, *to; /* `to` is never the longer, so that replacing works in place */
} replacement;

static size_t replace_all(char *text, size_t size, replacement r)
{
    size_t from_size = strlen(r.from), to_size = strlen(r.to), out = 0;
    for (size_t i = 0; i < size;) {
        if (text[i] == r.from[0] && size - i >= from_size && !memcmp(text + i, r.from, from_size)) {
            memcpy(text + out, r.to, to_size);
            out += to_size;
            i += from_size;
        } else {
            text[out++] = text[i++];
        }
    }
    return out;
}

size_t sdx_clean_up_spaces(char *text, size_t size)
{
    static const replacement table[] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                                        {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                                        {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) size = replace_all(text, size, table[i]);
    return size;
}

/* tokenizers' own list, one longer, and applied to single tokens. */
static size_t clean_up_token(char *text, size_t size)
{
    static const replacement table[] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) size = replace_all(text, size, table[i]);
    return size;
}

sdx_status sdx_decode_wordpiece(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    for (size_t i = 0; i < s->now.count; i++) {
        const char *token = s->now.text + s->now.piece[i].begin;
        size_t size = s->now.piece[i].end - s->now.piece[i].begin, begin = s->next.size;
        bool suffix = i && size >= step->pattern.size && !memcmp(token, step->pattern.data, step->pattern.size);
        if (suffix) {
            token += step->pattern.size;
            size -= step->pattern.size;
        } else if (i) {
            TRY(sdx_text_append(&s->next, " ", 1, err));
        }
        TRY(sdx_text_append(&s->next, token, size, err));
        if (step->cleanup) s->next.size = begin + clean_up_token(s->next.text + begin, s->next.size - begin);
        TRY(sdx_piece_add(&s->next, begin, s->next.size, -1, err));
    }
    sdx_scratch_swap(s);
    return SDX_OK;
}
