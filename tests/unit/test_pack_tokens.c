/* test_pack_tokens.c: a padded batch gives every text the bytes that it has alone, hidden tokens in front and between
 * included, and what the graph computes as it is spelled. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../graph/graph.h"

enum { LENGTH = 40, MOST_TEXTS = 120, VOCABULARY = 2000 };

typedef struct encoder {
    sdx_program *program;
    sdx_session *session;
} encoder;

static const char *place(char path[512], const char *model)
{
    const char *data = getenv("SDX_TEST_DATA");
    snprintf(path, 512, "%s/zoo/%s.onnx", data ? data : "tests/data", model);
    return path;
}

static encoder open_file(const char *path, sdx_run_options options)
{
    encoder e;
    sdx_error err = {0};
    options.threads = 2;
    ck_assert_msg(sdx_program_open(path, &options, &e.program, &err) == SDX_OK, "%s", err.message);
    ck_assert_int_eq(sdx_session_create(e.program, &e.session, NULL), SDX_OK);
    return e;
}

static encoder open_encoder(const char *model, sdx_run_options options)
{
    char path[512];
    return open_file(place(path, model), options);
}

static void close_encoder(encoder *e)
{
    sdx_session_free(e->session);
    sdx_program_free(e->program);
}

static const sdx_node *find_node(const sdx_graph *g, const char *op)
{
    for (sdx_id i = 0; i < g->n_node; i++)
        if (!strcmp(g->node[i].op_type, op)) return &g->node[i];
    return NULL;
}

static bool is_packed(const encoder *e)
{
    return find_node(sdx_program_model(e->program)->graph, "PackTokens") != NULL;
}

/* ---- batches --------------------------------------------------------------------------------------------- */

typedef struct batch {
    int64_t texts, length;
    int64_t ids[MOST_TEXTS * LENGTH], mask[MOST_TEXTS * LENGTH], types[MOST_TEXTS * LENGTH];
} batch;

/* Text b has 1 + 7b % length tokens after `before` hidden ones. */
static void fill(batch *b, int64_t texts, int64_t before)
{
    *b = (batch){.texts = texts, .length = LENGTH};
    for (int64_t i = 0; i < texts; i++)
        for (int64_t s = 0; s < LENGTH; s++) {
            int64_t at = i * LENGTH + s;
            b->ids[at] = 5 + (i * 37 + s * 11) % (VOCABULARY - 5);
            b->mask[at] = s >= before && s < before + 1 + i * 7 % (LENGTH - before);
        }
}

/* Row `row` by itself, without what trails behind its last token. */
static void take_row(const batch *from, int64_t row, batch *to)
{
    *to = (batch){.texts = 1};
    for (int64_t s = 0; s < LENGTH; s++)
        if (from->mask[row * LENGTH + s]) to->length = s + 1;
    memcpy(to->ids, from->ids + row * LENGTH, (size_t)to->length * sizeof *to->ids);
    memcpy(to->mask, from->mask + row * LENGTH, (size_t)to->length * sizeof *to->mask);
}

static sdx_status run(encoder *e, batch *b, size_t n_out, sdx_tensor *out, sdx_error *err)
{
    static const char *const names[] = {"input_ids", "attention_mask", "token_type_ids"};
    sdx_shape shape = {.rank = 2, .dim = {b->texts, b->length}};
    sdx_tensor in[] = {sdx_tensor_make(SDX_I64, &shape, b->ids), sdx_tensor_make(SDX_I64, &shape, b->mask),
                       sdx_tensor_make(SDX_I64, &shape, b->types)};
    return sdx_session_run(e->session, 3, names, in, n_out, out, err);
}

static sdx_tensor run_well(encoder *e, batch *b)
{
    sdx_tensor out;
    sdx_error err = {0};
    ck_assert_msg(run(e, b, 1, &out, &err) == SDX_OK, "%s", err.message);
    return out;
}

static void compare(const float *got, const float *want, int64_t n, float tolerance)
{
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(got[i] - want[i]) <= tolerance, "%lld: %.9g, expected %.9g", (long long)i, (double)got[i],
                      (double)want[i]);
}

/* ---- what is the same ------------------------------------------------------------------------------------ */

/* A classifier reads its first token. */
START_TEST(batches_are_singles)
{
    encoder e = open_encoder("bert-classify-bin/torchscript-op14", (sdx_run_options){0});
    static batch all, one;
    ck_assert(is_packed(&e));
    fill(&all, MOST_TEXTS, 0); /* 2,400 tokens: more than a piece */
    sdx_tensor out = run_well(&e, &all);
    size_t row = (size_t)out.dim[1] * sizeof(float);
    char *batched = malloc(row * MOST_TEXTS);
    memcpy(batched, out.data, row * MOST_TEXTS);
    for (int64_t i = 0; i < MOST_TEXTS; i += 7) {
        take_row(&all, i, &one);
        ck_assert_mem_eq(run_well(&e, &one).data, batched + (size_t)i * row, row);
    }
    free(batched);
    close_encoder(&e);
}
END_TEST

/* Hidden tokens in front, also where the first one is read. */
START_TEST(left_padding_is_as_spelled)
{
    encoder e = open_encoder("bert-classify-bin/torchscript-op14", (sdx_run_options){0});
    encoder spelled = open_encoder("bert-classify-bin/torchscript-op14", (sdx_run_options){.no_optimize = true});
    static batch b;
    for (int64_t before = 0; before < 12; before += 5) {
        fill(&b, 9, before);
        if (before == 5) memset(b.mask + 3 * LENGTH, 0, LENGTH * sizeof *b.mask); /* a text of no token at all */
        sdx_tensor got = run_well(&e, &b), want = run_well(&spelled, &b);
        compare(got.data, want.data, sdx_tensor_count(&want), 1e-5f);
    }
    close_encoder(&e);
    close_encoder(&spelled);
}
END_TEST

START_TEST(skipped_padding_is_zero)
{
    encoder e = open_encoder("bert-model/torchscript-op14", (sdx_run_options){.skip_padding = true});
    encoder spelled = open_encoder("bert-model/torchscript-op14", (sdx_run_options){0});
    static batch b;
    fill(&b, 9, 3);
    ck_assert(is_packed(&e) && !is_packed(&spelled));
    sdx_tensor got = run_well(&e, &b), want = run_well(&spelled, &b);
    int64_t hidden = want.dim[2];
    static const float zeros[4096];
    for (int64_t t = 0; t < b.texts * LENGTH; t++)
        compare((const float *)got.data + t * hidden, b.mask[t] ? (const float *)want.data + t * hidden : zeros, hidden,
                b.mask[t] ? 1e-5f : 0.0f);
    close_encoder(&e);
    close_encoder(&spelled);
}
END_TEST

/* ---- the sparse head ------------------------------------------------------------------------------------- */

static void check_weights(encoder *e, encoder *spelled, batch *b)
{
    sdx_tensor got[2], want[2];
    ck_assert_int_eq(run(e, b, 2, got, NULL), SDX_OK);
    ck_assert_int_eq(run(spelled, b, 2, want, NULL), SDX_OK);
    ck_assert_int_gt(want[0].dim[0], 0);
    ck_assert_int_eq(got[0].dim[0], want[0].dim[0]);
    ck_assert_mem_eq(got[0].data, want[0].data, sdx_tensor_bytes(&want[0]));
    compare(got[1].data, want[1].data, want[1].dim[0], 1e-5f);
}

START_TEST(sparse_head_never_stores_logits)
{
    encoder e = open_encoder("bert-splade/torchscript-op14", (sdx_run_options){0});
    encoder spelled = open_encoder("bert-splade/torchscript-op14", (sdx_run_options){.no_optimize = true});
    const sdx_node *pack = find_node(sdx_program_model(e.program)->graph, "PackTokens");
    ck_assert(pack && find_node(sdx_node_body(pack, "body"), "LinearMax"));
    ck_assert(!find_node(sdx_program_model(e.program)->graph, "ReduceMax"));
    static batch b;
    for (int64_t before = 0; before < 10; before += 3) {
        fill(&b, 11, before);
        check_weights(&e, &spelled, &b);
    }
    close_encoder(&e);
    close_encoder(&spelled);
}
END_TEST

/* In bytes the scale of a row is the row's own, so that again a batch is what its texts are alone. */
START_TEST(sparse_head_in_int8)
{
    char in[512], out[] = "/tmp/sdx_pack_XXXXXX";
    close(mkstemp(out));
    sdx_quantize_options how = {
        .input = place(in, "bert-splade/torchscript-op14"), .output = out, .preset = "accurate"};
    sdx_quantize_report report;
    ck_assert_int_eq(sdx_quantize(&how, &report, NULL), SDX_OK);
    encoder e = open_file(out, (sdx_run_options){0});
    unlink(out);
    const sdx_node *pack = find_node(sdx_program_model(e.program)->graph, "PackTokens");
    ck_assert(pack && find_node(sdx_node_body(pack, "body"), "DynamicLinearMax"));
    static batch all, one;
    sdx_tensor got[2];
    fill(&all, 20, 0);
    for (int64_t i = 0, at = 0; i < all.texts; i++) {
        take_row(&all, i, &one);
        ck_assert_int_eq(run(&e, &one, 2, got, NULL), SDX_OK);
        int64_t n = got[1].dim[0];
        ck_assert_int_gt(n, 0);
        float *alone = malloc((size_t)n * sizeof *alone);
        memcpy(alone, got[1].data, (size_t)n * sizeof *alone);
        ck_assert_int_eq(run(&e, &all, 2, got, NULL), SDX_OK);
        ck_assert_mem_eq((float *)got[1].data + at, alone, (size_t)n * sizeof *alone);
        free(alone);
        at += n;
    }
    close_encoder(&e);
}
END_TEST

START_TEST(mask_must_be_binary)
{
    encoder e = open_encoder("bert-splade/torchscript-op14", (sdx_run_options){0});
    static batch b;
    fill(&b, 2, 0);
    b.mask[0] = 2;
    sdx_tensor out[2];
    sdx_error err = {0};
    ck_assert_int_eq(run(&e, &b, 2, out, &err), SDX_ERR_USAGE);
    ck_assert_msg(strstr(err.message, "the mask holds 2") != NULL, "%s", err.message);
    close_encoder(&e);
}
END_TEST

Suite *pack_tokens_suite(void);
Suite *pack_tokens_suite(void)
{
    Suite *s = suite_create("pack_tokens");
    TCase *c = tcase_create("packed");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, batches_are_singles);
    tcase_add_test(c, left_padding_is_as_spelled);
    tcase_add_test(c, skipped_padding_is_zero);
    tcase_add_test(c, sparse_head_never_stores_logits);
    tcase_add_test(c, sparse_head_in_int8);
    tcase_add_test(c, mask_must_be_binary);
    suite_add_tcase(s, c);
    return s;
}
