/* synthetic.c: see synthetic.h. The tensors are those the family's table lists for config.json's architecture,
 * so a new family needs nothing here. */
#include "synthetic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/buffer.h"
#include "../base/memory.h"
#include "family.h"

enum { CHUNK = 4096, HEADER_ALIGN = 8 };

typedef struct job {
    const sdx_synthetic_options *options;
    const sdx_family *family;
    const sdx_head *head;
    sdx_settings settings;
    unsigned parts;
    size_t bytes;   /* of data so far */
    uint64_t index; /* of the tensor */
    sdx_buffer header;
    sdx_writer writer;
} job;

/* ---- numbers --------------------------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Nearly normal, mean 0, deviation 1: four 16-bit uniforms summed (Irwin-Hall). No libm, so the same
 * everywhere. */
static float next_normal(uint64_t *state)
{
    uint64_t r = next_random(state);
    int sum =
        (int)(r & 0xffff) + (int)(r >> 16 & 0xffff) + (int)(r >> 32 & 0xffff) + (int)(r >> 48) - 2 * 0xffff;
    return (float)sum * (1.7320508f / 65536);
}

static float fill_value(const job *j, sdx_fill fill, float normal)
{
    const float small = 0.02f;
    switch (fill) {
    case SDX_FILL_WEIGHT: return normal * (float)j->settings.initializer_range;
    case SDX_FILL_NORM: return 1 + normal * small;
    case SDX_FILL_BIAS: break;
    }
    return normal * small;
}

static size_t encode(float x, sdx_dtype dtype, unsigned char *out)
{
    if (dtype == SDX_F32) {
        memcpy(out, &x, sizeof x);
        return sizeof x;
    }
    uint16_t half = dtype == SDX_F16 ? sdx_f32_to_f16(x) : sdx_f32_to_bf16(x);
    memcpy(out, &half, sizeof half);
    return sizeof half;
}

/* ---- model.safetensors ----------------------------------------------------------------------------------- */

static sdx_status put_header(void *context, const sdx_tensor_spec *spec, sdx_error *err)
{
    static const char *const names[] = {[SDX_F32] = "F32", [SDX_F16] = "F16", [SDX_BF16] = "BF16"};
    job *j = context;
    size_t bytes;
    sdx_shape shape = sdx_shape_make(spec->rank, spec->dim);
    bool prefixed = (j->parts & ~j->family->body) && (spec->row->part & j->family->body);
    if (!sdx_tensor_size(j->options->dtype, &shape, &bytes) || !sdx_add_size(bytes, j->bytes, &bytes))
        return sdx_fail(err, SDX_ERR_USAGE, "tensor \"%s\" is too large", spec->name);
    sdx_buffer_printf(&j->header, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[", prefixed ? j->family->prefix : "",
                      spec->name, names[j->options->dtype]);
    for (int i = 0; i < spec->rank; i++)
        sdx_buffer_printf(&j->header, "%s%lld", i ? "," : "", (long long)spec->dim[i]);
    sdx_buffer_printf(&j->header, "],\"data_offsets\":[%zu,%zu]}", j->bytes, bytes);
    j->bytes = bytes;
    return SDX_OK;
}

static sdx_status put_data(void *context, const sdx_tensor_spec *spec, sdx_error *err)
{
    job *j = context;
    unsigned char chunk[CHUNK];
    sdx_shape shape = sdx_shape_make(spec->rank, spec->dim);
    uint64_t state = j->options->seed * 0x9e3779b97f4a7c15u + j->index++ * 0xd1342543de82ef95u;
    size_t used = 0;
    (void)err;
    for (int64_t i = 0, n = sdx_shape_count(&shape); i < n; i++) {
        used += encode(fill_value(j, spec->row->fill, next_normal(&state)), j->options->dtype, chunk + used);
        if (used == CHUNK || i + 1 == n) sdx_writer_put(&j->writer, chunk, used), used = 0;
    }
    return SDX_OK;
}

static sdx_status put_tensors(void *context, sdx_error *err)
{
    job *j = context;
    sdx_buffer_puts(&j->header, "{\"__metadata__\":{\"format\":\"pt\"}");
    TRY(sdx_family_each_tensor(j->family, &j->settings, j->parts, put_header, j, err));
    sdx_buffer_putc(&j->header, '}');
    while (!j->header.failed && j->header.size % HEADER_ALIGN) sdx_buffer_putc(&j->header, ' ');
    if (j->header.failed) return sdx_fail_memory(err, j->header.size);
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)j->header.size >> 8 * i);
    sdx_writer_put(&j->writer, length, sizeof length);
    sdx_writer_put(&j->writer, j->header.data, j->header.size);
    return sdx_family_each_tensor(j->family, &j->settings, j->parts, put_data, j, err);
}

/* ---- the small files ------------------------------------------------------------------------------------- */

static sdx_status put_config(void *context, sdx_error *err)
{
    job *j = context;
    char *text, *path = NULL;
    size_t size;
    bool folder = sdx_is_directory(j->options->config);
    if (folder && !(path = sdx_path_join(j->options->config, "config.json"))) return sdx_fail_memory(err, 0);
    sdx_status status = sdx_file_read(folder ? path : j->options->config, 16 << 20, &text, &size, err);
    free(path);
    if (status != SDX_OK) return status;
    sdx_writer_put(&j->writer, text, size);
    free(text);
    return SDX_OK;
}

/* Line n is token n: the special tokens where BERT has them, every printable ASCII character as a word and as a
 * continuation, so that any English text has tokens, then invented words. */
static void put_token(sdx_writer *w, int64_t id, int64_t first_special)
{
    static const char *const special[] = {"[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    enum { FIRST = '!', LAST = '~', N = LAST - FIRST + 1 };
    char text[32];
    int64_t rest = id - first_special - 4;
    if (id == 0)
        snprintf(text, sizeof text, "[PAD]");
    else if (id < first_special)
        snprintf(text, sizeof text, "[unused%d]", (int)id - 1);
    else if (rest < 0)
        snprintf(text, sizeof text, "%s", special[id - first_special]);
    else if (rest < N)
        snprintf(text, sizeof text, "%c", (char)(FIRST + rest));
    else if (rest < 2 * N)
        snprintf(text, sizeof text, "##%c", (char)(FIRST + rest - N));
    else
        snprintf(text, sizeof text, "word%d", (int)rest);
    sdx_writer_put(w, text, strlen(text));
    sdx_writer_put(w, "\n", 1);
}

static sdx_status put_vocabulary(void *context, sdx_error *err)
{
    job *j = context;
    (void)err;
    for (int64_t id = 0; id < j->settings.vocab; id++)
        put_token(&j->writer, id, j->settings.vocab >= 1000 ? 100 : 1);
    return SDX_OK;
}

static sdx_status put_tokenizer(void *context, sdx_error *err)
{
    job *j = context;
    char text[256];
    (void)err;
    int n = snprintf(
        text, sizeof text,
        "{\"tokenizer_class\": \"BertTokenizer\", \"do_lower_case\": true, \"model_max_length\": %lld}\n",
        (long long)j->settings.positions);
    sdx_writer_put(&j->writer, text, (size_t)n);
    return SDX_OK;
}

/* ---- the folder ------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    sdx_status (*put)(void *job, sdx_error *err);
} files[] = {
    {"config.json", put_config},
    {"vocab.txt", put_vocabulary},
    {"tokenizer_config.json", put_tokenizer},
    {"model.safetensors", put_tensors},
};

static sdx_status write_file(job *j, size_t i, sdx_error *err)
{
    char *path = sdx_path_join(j->options->folder, files[i].name);
    if (!path) return sdx_fail_memory(err, strlen(j->options->folder));
    sdx_status status = sdx_writer_open(&j->writer, path, err);
    free(path);
    if (status != SDX_OK) return status;
    status = files[i].put(j, err);
    if (status == SDX_OK) return sdx_writer_commit(&j->writer, err);
    sdx_writer_abort(&j->writer);
    return status;
}

static sdx_status read_job(job *j, sdx_error *err)
{
    sdx_config config;
    TRY(sdx_config_open(j->options->config, &config, err));
    sdx_status status = sdx_family_find(&config, &j->family, err);
    if (status == SDX_OK) status = sdx_family_find_head(j->family, &config, NULL, &j->head, err);
    if (status == SDX_OK) status = j->family->read(&config, &j->settings, err);
    if (status == SDX_OK) j->parts = sdx_family_parts(j->head, &j->settings);
    sdx_config_close(&config);
    return status;
}

sdx_status sdx_synthetic_write(const sdx_synthetic_options *options, sdx_error *err)
{
    job j = {.options = options};
    if (options->dtype != SDX_F32 && options->dtype != SDX_F16 && options->dtype != SDX_BF16)
        return sdx_fail(err, SDX_ERR_USAGE, "a checkpoint's dtype is float32, float16 or bfloat16");
    TRY(read_job(&j, err));
    if (mkdir(options->folder, 0777) && errno != EEXIST)
        return sdx_fail(err, SDX_ERR_FILE, "%s: cannot make the folder: %s", options->folder, strerror(errno));
    sdx_status status = SDX_OK;
    for (size_t i = 0; i < sizeof files / sizeof *files && status == SDX_OK; i++)
        status = write_file(&j, i, err);
    sdx_buffer_fini(&j.header);
    return status;
}
