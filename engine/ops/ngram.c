/* ngram.c: TfIdfVectorizer. Every n-gram of the attributes' pool has a coordinate; the n-grams of a row of the
 * input, also with items skipped between their parts, are looked up in a dictionary of the pool and counted
 * there. */
#include <string.h>

#include "compute.h"
#include "contents.h"
#include "dictionary.h"

typedef struct vectorizer {
    sdx_dictionary pool;
    int64_t width; /* coordinates */
    int64_t min_length, max_length, max_skip;
    bool counts, weighs; /* TF; TFIDF; IDF: weighs only */
    const float *weight; /* [width] */
} vectorizer;

static const char *const required[] = {"ngram_counts",    "ngram_indexes",  "max_gram_length",
                                       "min_gram_length", "max_skip_count", "mode"};

static sdx_status check_attributes(const sdx_node *node, sdx_error *err)
{
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (!sdx_node_attr(node, required[i]))
            return sdx_fail(err, SDX_ERR_FILE, "attribute %s is missing", required[i]);
    return SDX_OK;
}

/* Largest coordinate + 1. */
static sdx_status find_width(const sdx_node *node, int64_t *width, sdx_error *err)
{
    size_t n;
    TRY(check_attributes(node, err));
    const int64_t *index = sdx_node_ints(node, "ngram_indexes", &n);
    *width = 0;
    for (size_t i = 0; i < n; i++) {
        if (index[i] < 0 || index[i] > INT32_MAX)
            return sdx_fail(err, SDX_ERR_FILE, "ngram_indexes[%zu] is %lld", i, (long long)index[i]);
        if (index[i] >= *width) *width = index[i] + 1;
    }
    return SDX_OK;
}

static sdx_status infer_tfidf(sdx_infer *x)
{
    int64_t width;
    TRY(find_width(x->node, &width, x->err));
    TRY(sdx_want_rank(x, 0, "the input", 1, 2));
    bool strings = sdx_node_attr(x->node, "pool_strings") != NULL;
    TRY(sdx_want_dtype(x, 0, "the input", strings ? SDX_SET(SDX_STRING) : SDX_SET(SDX_I32) | SDX_SET(SDX_I64)));
    sdx_shape out = x->in[0].shape;
    if (out.rank > 0) out.dim[out.rank - 1] = width;
    sdx_infer_set(x, 0, SDX_F32, &out);
    return SDX_OK;
}

static sdx_status load_pool(sdx_prepare *p, sdx_item **out, size_t *count)
{
    const sdx_attr *strings = sdx_node_attr(p->node, "pool_strings"),
                   *ints = sdx_node_attr(p->node, "pool_int64s");
    bool text = strings && strings->strings;
    *count = text ? strings->count : ints && ints->ints ? ints->count : 0;
    ARENA_NEW(p->arena, *out, *count, p->err);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] =
            text ? (sdx_item){.string = strings->strings[i]} : (sdx_item){.bits = (uint64_t)ints->ints[i]};
    return SDX_OK;
}

/* ngram_counts[n-1] is where the n-grams begin in the pool. */
static sdx_status fill_dictionary(sdx_prepare *p, vectorizer *v)
{
    size_t n_pool, n_begin, n_index, known = 0;
    sdx_item *pool;
    TRY(load_pool(p, &pool, &n_pool));
    const int64_t *begin = sdx_node_ints(p->node, "ngram_counts", &n_begin);
    const int64_t *index = sdx_node_ints(p->node, "ngram_indexes", &n_index);
    TRY(sdx_dictionary_init(&v->pool, p->arena, n_index, p->err));
    for (size_t n = 1; n <= n_begin; n++) {
        int64_t from = begin[n - 1], to = n < n_begin ? begin[n] : (int64_t)n_pool;
        if (from < 0 || to < from || to > (int64_t)n_pool || (size_t)(to - from) % n)
            return sdx_fail(p->err, SDX_ERR_FILE, "ngram_counts[%zu] does not fit the pool", n - 1);
        for (; from < to; from += (int64_t)n) {
            if (known == n_index)
                return sdx_fail(p->err, SDX_ERR_FILE, "the pool has more n-grams than ngram_indexes");
            sdx_dictionary_put(&v->pool, pool + from, (int64_t)n, index[known++]);
        }
    }
    return SDX_OK;
}

static sdx_status load_weights(sdx_prepare *p, vectorizer *v)
{
    const sdx_attr *weights = sdx_node_attr(p->node, "weights");
    size_t n;
    const int64_t *index = sdx_node_ints(p->node, "ngram_indexes", &n);
    float *weight;
    ARENA_NEW(p->arena, weight, (size_t)v->width, p->err);
    for (int64_t i = 0; i < v->width; i++) weight[i] = 1;
    if (weights && weights->floats) {
        if (weights->count != n)
            return sdx_fail(p->err, SDX_ERR_FILE, "weights and ngram_indexes differ in length");
        for (size_t i = 0; i < n; i++) weight[index[i]] = weights->floats[i];
    }
    v->weight = weight;
    return SDX_OK;
}

static sdx_status prepare_tfidf(sdx_prepare *p)
{
    vectorizer *v;
    PREPARE_STATE(p, v);
    TRY(find_width(p->node, &v->width, p->err));
    const char *mode = sdx_node_string(p->node, "mode", "");
    v->counts = !strncmp(mode, "TF", 2);
    v->weighs = strcmp(mode, "TF") != 0;
    if (strcmp(mode, "TF") && strcmp(mode, "IDF") && strcmp(mode, "TFIDF"))
        return sdx_fail(p->err, SDX_ERR_FILE, "mode is \"%.40s\", but must be TF, IDF or TFIDF", mode);
    v->min_length = sdx_node_int(p->node, "min_gram_length", 1);
    v->max_length = sdx_node_int(p->node, "max_gram_length", 1);
    v->max_skip = sdx_node_int(p->node, "max_skip_count", 0);
    if (v->min_length < 1 || v->max_length < v->min_length || v->max_skip < 0)
        return sdx_fail(p->err, SDX_ERR_FILE, "n-gram lengths or max_skip_count make no sense");
    TRY(fill_dictionary(p, v));
    return load_weights(p, v);
}

static sdx_status plan_tfidf(sdx_plan_step *p)
{
    size_t items = (size_t)sdx_shape_count(&p->in[0].shape);
    return sdx_workspace_add(&p->workspace, items, sizeof(sdx_item)) ? SDX_OK : sdx_workspace_fail(p->err);
}

/* Counts the n-grams of item[n]. A 1-gram has nothing to skip. */
static void count_row(const vectorizer *v, const sdx_item *item, int64_t n, float *count)
{
    for (int64_t length = v->min_length; length <= v->max_length && length <= n; length++)
        for (int64_t step = 1;
             step - 1 <= v->max_skip && (length == 1 ? step == 1 : step <= (n - 1) / (length - 1)); step++)
            for (int64_t i = 0; i + (length - 1) * step < n; i++) {
                int64_t coordinate = sdx_dictionary_find(&v->pool, item + i, length, step);
                if (coordinate >= 0) count[coordinate]++;
            }
}

static sdx_status run_tfidf(sdx_run *r)
{
    const vectorizer *v = r->state;
    const sdx_tensor *x = &r->in[0];
    sdx_item *item = r->workspace;
    int64_t items = sdx_tensor_count(x), n = x->dim[x->rank - 1], rows = x->rank == 2 ? x->dim[0] : 1;
    for (int64_t i = 0; i < items; i++) item[i] = sdx_item_at(x, i);
    for (int64_t row = 0; row < rows; row++) {
        float *y = (float *)r->out[0].data + row * v->width;
        for (int64_t k = 0; k < v->width; k++) y[k] = 0;
        count_row(v, item + row * n, n, y);
        for (int64_t k = 0; k < v->width; k++) {
            if (!v->counts) y[k] = y[k] > 0;
            if (v->weighs) y[k] *= v->weight[k];
        }
    }
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "TfIdfVectorizer", 9, 0, 1, 1, 1, 1, 0, infer_tfidf, prepare_tfidf, plan_tfidf, run_tfidf},
};

SDX_OP_TABLE(ngram);
