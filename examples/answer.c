/* answer.c: every task from a folder and one input, through the public header alone.
 *
 *   answer classify|embed|encode|generate FOLDER TEXT
 *   answer transcribe FOLDER SOUND
 *
 * FOLDER holds a checkpoint, or model.onnx, and the tokenizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sardonyx.h>

static sdx_status classify(const sdx_task_options *o, const char *text, sdx_error *err)
{
    sdx_classifier *c;
    sdx_status status = sdx_classifier_open(o, &c, err);
    if (status != SDX_OK) return status;
    size_t n = sdx_classifier_label_count(c);
    float *score = calloc(n, sizeof *score);
    if (score) status = sdx_classifier_run(c, &(sdx_text){text, strlen(text)}, NULL, 1, score, err);
    for (size_t i = 0; score && status == SDX_OK && i < n; i++)
        printf("%.4f %s\n", score[i], sdx_classifier_label(c, i));
    free(score);
    sdx_classifier_free(c);
    return status;
}

static sdx_status embed(const sdx_task_options *o, const char *text, sdx_error *err)
{
    sdx_embedder *e;
    sdx_status status = sdx_embedder_open(o, &e, err);
    if (status != SDX_OK) return status;
    size_t dim = sdx_embedder_dim(e);
    float *vector = calloc(dim, sizeof *vector);
    if (vector) status = sdx_embedder_run(e, &(sdx_text){text, strlen(text)}, 1, vector, err);
    for (size_t d = 0; vector && status == SDX_OK && d < dim; d++) printf("%g%c", vector[d], d + 1 < dim ? ' ' : '\n');
    free(vector);
    sdx_embedder_free(e);
    return status;
}

static sdx_status encode(const sdx_task_options *o, const char *text, sdx_error *err)
{
    sdx_sparse_encoder *e;
    sdx_sparse_vector v;
    sdx_status status = sdx_sparse_encoder_open(o, &e, err);
    if (status != SDX_OK) return status;
    status = sdx_sparse_encoder_run(e, &(sdx_text){text, strlen(text)}, 1, &v, err);
    for (size_t i = 0; status == SDX_OK && i < v.count; i++)
        printf("%g %s\n", v.weight[i], sdx_tokenizer_token(sdx_sparse_encoder_tokenizer(e), v.index[i]));
    sdx_sparse_encoder_free(e);
    return status;
}

static sdx_status generate(const sdx_task_options *o, const char *text, sdx_error *err)
{
    sdx_generator *g;
    sdx_generated said;
    char *answer = NULL;
    sdx_status status = sdx_generator_open(o, &g, err);
    if (status != SDX_OK) return status;
    status = sdx_generator_run(g, NULL, &(sdx_text){text, strlen(text)}, 1, &said, err);
    if (status == SDX_OK)
        status = sdx_tokenizer_decode(sdx_generator_tokenizer(g), said.ids, said.count, true, &answer, NULL, err);
    if (status == SDX_OK) printf("%s\n", answer);
    free(answer);
    sdx_generator_free(g);
    return status;
}

static sdx_status transcribe(const sdx_task_options *o, const char *path, sdx_error *err)
{
    sdx_transcriber *t;
    sdx_transcript said;
    float *samples = NULL;
    size_t count;
    int rate;
    sdx_status status = sdx_transcriber_open(o, &t, err);
    if (status != SDX_OK) return status;
    status = sdx_audio_read(path, &samples, &count, &rate, err);
    if (status == SDX_OK) status = sdx_transcriber_run(t, NULL, samples, count, rate, &said, err);
    if (status == SDX_OK) {
        for (size_t i = 0; i < said.words; i++)
            printf("%6.2f %6.2f %s\n", said.word[i].start, said.word[i].end, said.word[i].text);
        sdx_transcript_free(&said);
    }
    free(samples);
    sdx_transcriber_free(t);
    return status;
}

static const struct {
    const char *name;
    sdx_status (*run)(const sdx_task_options *o, const char *input, sdx_error *err);
} tasks[] = {
    {"classify", classify}, {"embed", embed}, {"encode", encode}, {"generate", generate}, {"transcribe", transcribe},
};

int main(int argc, char **argv)
{
    sdx_error err = {0};
    for (size_t i = 0; argc == 4 && i < sizeof tasks / sizeof *tasks; i++) {
        if (strcmp(argv[1], tasks[i].name)) continue;
        if (tasks[i].run(&(sdx_task_options){.model = argv[2]}, argv[3], &err) == SDX_OK) return 0;
        fprintf(stderr, "answer: %s\n", err.message);
        return 2;
    }
    fprintf(stderr, "usage: %s classify|embed|encode|generate|transcribe FOLDER TEXT|SOUND\n", argv[0]);
    return 2;
}
