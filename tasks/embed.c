/* embed.c: one dense vector a text: the prompt and the text through the tokenizer and the model, its tokens'
 * vectors through what modules.json says (sentence.c). */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "../tokenizer/unicode.h"
#include "sentence.h"
#include "text_model.h"

struct sdx_embedder {
    sdx_text_model model;
    char *folder; /* of modules.json; owned */
    int output; /* the model's output [batch, tokens, dim] */
    size_t dim; /* of it */
    sdx_sentence sentence;
    char *prompt;         /* before every text; owned, NULL: none */
    size_t prompt_tokens; /* that begin every text */
};

/* ---- opening --------------------------------------------------------------------------------------------- */

static sdx_status find_output(sdx_embedder *e, const char *path, sdx_error *err)
{
    const sdx_model *model = sdx_program_model(e->model.program);
    e->output = sdx_text_model_output(&e->model, "last_hidden_state");
    if (e->output < 0) e->output = sdx_text_model_output(&e->model, "token_embeddings");
    for (size_t i = 0; i < sdx_model_output_count(model) && e->output < 0; i++)
        if (sdx_model_output(model, i).rank == 3) e->output = (int)i;
    if (e->output >= 0) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: no output of shape [batch, tokens, dim] to pool", path);
}

static sdx_status note_dim(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    sdx_embedder *e = context;
    const sdx_tensor *t = &batch->output[e->output];
    if (t->rank != 3 || t->dtype != SDX_F32)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the output to pool is not float32 of rank 3");
    e->dim = (size_t)t->dim[2];
    return SDX_OK;
}

/* Opens model and tokenizer, from the folder that modules.json names where it does, then reads the rest of
 * modules.json. */
static sdx_status open_parts(sdx_embedder *e, const sdx_task_options *options, sdx_error *err)
{
    sdx_task_options o = *options;
    sdx_text probe = {"a", 1}; /* the graph may not say how wide its output is */
    char *transformer;
    sdx_status status;
    if (!o.model) return sdx_fail(err, SDX_ERR_USAGE, "no model given");
    e->folder = sdx_task_folder(options);
    if (!e->folder) return sdx_fail_memory(err, 1);
    TRY(sdx_sentence_transformer(e->folder, &transformer, err));
    if (!o.tokenizer || sdx_is_directory(o.tokenizer)) o.tokenizer = transformer;
    if (!strcmp(o.model, e->folder) && !sdx_task_has_graph(o.model)) o.model = transformer;
    TRY_GOTO(sdx_text_model_open(&o, &e->model, err));
    TRY_GOTO(find_output(e, o.model, err));
    TRY_GOTO(sdx_text_model_run(&e->model, &probe, NULL, 1, 1, note_dim, e, err));
    TRY_GOTO(sdx_sentence_open(e->folder, transformer, e->dim, &e->sentence, err));
done:
    free(transformer);
    return status;
}

static void limit_length(sdx_embedder *e)
{
    size_t *length = &e->model.max_length, positions = e->sentence.positions;
    if (e->sentence.max_length) *length = e->sentence.max_length;
    else if (positions && (!*length || *length > positions)) *length = positions;
}

sdx_status sdx_embedder_open(const sdx_task_options *options, sdx_embedder **out, sdx_error *err)
{
    sdx_embedder *e = sdx_calloc(1, sizeof *e);
    if (!e) return sdx_fail_memory(err, sizeof *e);
    sdx_status status;
    TRY_GOTO(open_parts(e, options, err));
    if (!options->max_length) limit_length(e);
    TRY_GOTO(sdx_embedder_set_prompt(e, NULL, NULL, err));
done:
    if (status != SDX_OK) sdx_embedder_free(e);
    else *out = e;
    return status;
}

void sdx_embedder_free(sdx_embedder *e)
{
    if (!e) return;
    sdx_text_model_close(&e->model);
    sdx_sentence_close(&e->sentence);
    free(e->folder);
    free(e->prompt);
    free(e);
}

size_t sdx_embedder_dim(const sdx_embedder *e) { return e->sentence.dim; }

/* ---- texts ----------------------------------------------------------------------------------------------- */

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* As sentence-transformers up to 5: without blanks at the ends. */
static sdx_text strip(sdx_text t)
{
    while (t.length > 0 && is_blank(t.data[t.length - 1])) t.length--;
    for (; t.length > 0 && is_blank(*t.data); t.length--) t.data++;
    return t;
}

/* The lower case of s at out, which has room for 2 * n bytes; bytes that are no UTF-8 stay. Returns its end. */
static char *put_lower(const char *s, size_t n, char *out)
{
    for (const char *end = s + n; s < end;) {
        const unsigned char *p = (const unsigned char *)s, *valid = p + sdx_utf8_valid(s, (size_t)(end - s));
        while (p < valid) {
            uint32_t lower[2];
            int points = sdx_lower(sdx_utf8_next(&p), lower);
            for (int i = 0; i < points; i++) out = sdx_utf8_put(out, lower[i]);
        }
        s = (const char *)p;
        if (s < end) *out++ = *s++;
    }
    return out;
}

static char *put(const sdx_embedder *e, const char *s, size_t n, char *out)
{
    if (e->sentence.lower_case) return put_lower(s, n, out);
    if (n > 0) memcpy(out, s, n);
    return out + n;
}

/* The texts as they are tokenized; *room owns what is new. */
static sdx_status prepare(const sdx_embedder *e, const sdx_text *texts, size_t count, sdx_text *out,
                          char **room, sdx_error *err)
{
    size_t prompt = e->prompt ? strlen(e->prompt) : 0, bytes = 0;
    bool copy = prompt > 0 || e->sentence.lower_case;
    for (size_t i = 0; i < count && copy; i++)
        if (!sdx_add_size(bytes, 2 * (prompt + texts[i].length), &bytes)) return sdx_fail_memory(err, SIZE_MAX);
    char *to = *room = sdx_malloc(bytes);
    if (!to) return sdx_fail_memory(err, bytes);
    for (size_t i = 0; i < count; i++) {
        out[i] = texts[i];
        if (copy) {
            char *begin = to;
            to = put(e, e->prompt, prompt, to);
            to = put(e, texts[i].data, texts[i].length, to);
            out[i] = (sdx_text){begin, (size_t)(to - begin)};
        }
        out[i] = strip(out[i]);
    }
    return SDX_OK;
}

/* ---- prompts --------------------------------------------------------------------------------------------- */

static sdx_status unknown_prompt(const sdx_embedder *e, const char *name, sdx_error *err)
{
    char known[512] = "";
    const char *key;
    json_t *value;
    json_object_foreach(e->sentence.prompts, key, value)
    {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", key);
    }
    return sdx_fail(err, SDX_ERR_USAGE,
                    "no prompt is called \"%.100s\"; %s/config_sentence_transformers.json has %s", name,
                    e->folder, *known ? known : "none");
}

/* The tokens of the prompt that begin a text: all but a special one at its end. */
static sdx_status count_prompt(sdx_embedder *e, sdx_error *err)
{
    sdx_encoding tokens;
    sdx_text prompt = strip((sdx_text){e->prompt, strlen(e->prompt)});
    TRY(sdx_tokenizer_encode(e->model.tokenizer, prompt.data, prompt.length, NULL, 0, e->model.max_length,
                             &tokens, err));
    bool closed = tokens.count && sdx_tokenizer_is_special(e->model.tokenizer, tokens.ids[tokens.count - 1]);
    e->prompt_tokens = tokens.count - closed;
    sdx_encoding_free(&tokens);
    return SDX_OK;
}

sdx_status sdx_embedder_set_prompt(sdx_embedder *e, const char *name, const char *text, sdx_error *err)
{
    if (name && text)
        return sdx_fail(err, SDX_ERR_USAGE, "a prompt is given by its name or as it is, not both");
    if (name) {
        text = sdx_sentence_prompt(&e->sentence, name);
        if (!text) return unknown_prompt(e, name, err);
    }
    if (!text) text = e->sentence.default_prompt;
    char *copy = text && *text ? sdx_strdup(text) : NULL;
    if (text && *text && !copy) return sdx_fail_memory(err, strlen(text));
    free(e->prompt);
    e->prompt = copy;
    e->prompt_tokens = 0;
    return copy ? count_prompt(e, err) : SDX_OK;
}

/* ---- running --------------------------------------------------------------------------------------------- */

typedef struct pool_job {
    const sdx_embedder *embedder;
    float *out;
} pool_job;

static sdx_status pool_batch(void *context, const sdx_text_batch *batch, sdx_error *err)
{
    const pool_job *job = context;
    const sdx_embedder *e = job->embedder;
    const sdx_tensor *t = &batch->output[e->output];
    if (t->rank != 3 || (size_t)t->dim[0] != batch->count || (size_t)t->dim[1] != batch->width ||
        (size_t)t->dim[2] != e->dim)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "the model's output is not [batch, tokens, %zu]", e->dim);
    for (size_t r = 0; r < batch->count; r++) {
        const float *x = (const float *)t->data + r * batch->width * e->dim;
        sdx_sentence_vector(&e->sentence, x, batch->length[r], e->prompt_tokens,
                            job->out + batch->index[r] * e->sentence.dim);
    }
    return SDX_OK;
}

sdx_status sdx_embedder_run(sdx_embedder *e, const sdx_text *texts, size_t count, float *out, sdx_error *err)
{
    pool_job job = {e, out};
    char *room = NULL;
    sdx_status status;
    sdx_text *prepared = sdx_calloc(count, sizeof *prepared);
    if (!prepared) return sdx_fail_memory(err, count * sizeof *prepared);
    TRY_GOTO(prepare(e, texts, count, prepared, &room, err));
    TRY_GOTO(sdx_text_model_run(&e->model, prepared, NULL, count, 0, pool_batch, &job, err));
done:
    free(room);
    free(prepared);
    return status;
}
