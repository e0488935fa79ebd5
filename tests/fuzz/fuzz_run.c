/* fuzz_run.c: any bytes as a model that is compiled, optimized, and run on small inputs. What the inputs hold follows
 * from the bytes, so that a file fails the same way every time. Memory and operators are bounded, which a service
 * that runs strangers' models would do too; what runs out must be an error, as everything else. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../../graph/graph.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
const char *__asan_default_options(void);

enum { MAX_PORTS = 32, MAX_ITEMS = 2, MAX_ELEMENTS = 1 << 16, MAX_STEPS = 2000, MAX_MEGABYTES = 256 };

__attribute__((used, visibility("default"))) const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=256";
}

/* The sanitizers reserve terabytes of addresses, and have a bound of their own. */
static void bound_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
    struct rlimit limit = {(rlim_t)MAX_MEGABYTES << 22, (rlim_t)MAX_MEGABYTES << 22};
    setrlimit(RLIMIT_AS, &limit);
#endif
}

static unsigned draw(uint64_t *state) /* Knuth's MMIX generator */
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 40);
}

static uint64_t hash_bytes(const unsigned char *data, size_t size) /* FNV-1a */
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ data[i]) * 0x100000001b3u;
    return hash;
}

/* Mostly sizes and indices that make sense, now and then one that does not. */
static int64_t draw_int(uint64_t *state)
{
    static const int64_t odd[] = {-1,     -3, 7, 100, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, (int64_t)1 << 32,
                                  1 << 20};
    unsigned pick = draw(state) % 128;
    return pick < sizeof odd / sizeof *odd ? odd[pick] : (int64_t)(pick % 4);
}

static void fill(sdx_tensor *t, uint64_t *state)
{
    int64_t n = sdx_tensor_count(t);
    if (t->dtype == SDX_STRING) {
        static const char *const words[] = {"a", "", "two words", "\xc3\xa9"};
        for (int64_t i = 0; i < n; i++) ((const char **)t->data)[i] = words[draw(state) % 4];
        return;
    }
    unsigned char *at = t->data;
    size_t one = sdx_dtype_size(t->dtype);
    for (int64_t i = 0; i < n; i++, at += one) {
        int64_t whole = draw_int(state);
        float f32 = (float)whole * 0.25f;
        double f64 = f32;
        if (t->dtype == SDX_F32) memcpy(at, &f32, one);
        else if (t->dtype == SDX_F64) memcpy(at, &f64, one);
        else if (t->dtype == SDX_BOOL) *at = (unsigned char)(whole & 1);
        else if (one == 1) *at = (unsigned char)(whole & 3); /* also the codes of the types below a byte */
        else if (one <= sizeof whole) memcpy(at, &whole, one);
        else memset(at, 0, one);
    }
}

/* False when the model declares too much to be tried. */
static bool make_tensor(const sdx_port *port, uint64_t *state, sdx_tensor *out)
{
    int64_t n = 1;
    *out = (sdx_tensor){port->dtype, port->rank < 0 ? (int)(draw(state) % 4) : port->rank, {0}, NULL};
    for (int d = 0; d < out->rank; d++) {
        bool known = port->rank >= 0 && port->dim[d] >= 0;
        out->dim[d] = known ? port->dim[d] : 1 + (int64_t)(draw(state) % 3);
        if (out->dim[d] > MAX_ELEMENTS || (n *= out->dim[d]) > MAX_ELEMENTS) return false;
    }
    if (out->dtype != SDX_STRING && !sdx_dtype_size(out->dtype)) return false;
    out->data = calloc((size_t)n + 1, 16);
    if (out->data) fill(out, state);
    return out->data != NULL;
}

typedef struct feed {
    const char *name[MAX_PORTS];
    sdx_tensor tensor[MAX_PORTS];
    sdx_tensor_list list[MAX_PORTS];
    sdx_tensor item[MAX_PORTS][MAX_ITEMS];
    size_t count;
} feed;

static bool make_value(const sdx_port *port, uint64_t *state, feed *f, size_t i)
{
    f->name[i] = port->name;
    if (port->optional && draw(state) % 2) {
        f->tensor[i] = (sdx_tensor){.dtype = SDX_NOTHING};
        return true;
    }
    if (!port->sequence) return make_tensor(port, state, &f->tensor[i]);
    f->list[i] = (sdx_tensor_list){port->dtype, 0, f->item[i]};
    f->tensor[i] = (sdx_tensor){.dtype = SDX_TENSOR_LIST, .data = &f->list[i]};
    for (size_t n = draw(state) % (MAX_ITEMS + 1); f->list[i].count < n; f->list[i].count++)
        if (!make_tensor(port, state, &f->item[i][f->list[i].count])) return false;
    return true;
}

static void free_feed(feed *f)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->tensor[i].dtype != SDX_TENSOR_LIST) free(f->tensor[i].data);
        for (size_t k = 0; k < MAX_ITEMS; k++) free(f->item[i][k].data);
    }
    free(f);
}

static unsigned touch(const sdx_tensor *t) /* the sanitizer watches the reads */
{
    unsigned sum = 0;
    if (!t->data) return 0; /* of no elements */
    if (t->dtype == SDX_TENSOR_LIST) {
        const sdx_tensor_list *list = t->data;
        for (size_t i = 0; i < list->count; i++) sum += touch(&list->item[i]);
    } else if (t->dtype == SDX_STRING) {
        for (int64_t i = 0; i < sdx_tensor_count(t); i++) sum += (unsigned)strlen(((char **)t->data)[i]);
    } else if (t->dtype != SDX_NOTHING) {
        for (size_t i = 0, n = sdx_tensor_bytes(t); i < n; i++) sum += ((unsigned char *)t->data)[i];
    }
    return sum;
}

static unsigned run(const sdx_program *program, sdx_session *session, uint64_t *state)
{
    const sdx_model *model = sdx_program_model(program);
    size_t n_in = sdx_model_input_count(model), n_out = sdx_model_output_count(model);
    sdx_tensor output[MAX_PORTS];
    sdx_error err = {0};
    unsigned sum = 0;
    feed *f = n_in <= MAX_PORTS && n_out <= MAX_PORTS ? calloc(1, sizeof *f) : NULL;
    if (!f) return 0;
    bool ok = true;
    while (ok && f->count < n_in) {
        sdx_port port = sdx_model_input(model, f->count);
        ok = make_value(&port, state, f, f->count);
        f->count++;
    }
    if (ok && sdx_session_run(session, n_in, f->name, f->tensor, n_out, output, &err) == SDX_OK)
        for (size_t i = 0; i < n_out; i++) sum += touch(&output[i]);
    else if (ok && !err.message[0]) abort(); /* every refusal says why */
    free_feed(f);
    return sum;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    sdx_model *model;
    sdx_program *program;
    sdx_session *session;
    sdx_error err = {0};
    unsigned sum = 0;
    uint64_t state = hash_bytes(data, size);
    sdx_run_options options = {.threads = 1, .no_optimize = draw(&state) % 4 == 0, .max_steps = MAX_STEPS};
    if (!size) return 0;
    bound_memory();
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return 0;
    memcpy(map, data, size);
    if (sdx_onnx_read_mapped("fuzz.onnx", (sdx_file_map){.data = map, .size = size}, &model, &err) != SDX_OK ||
        sdx_program_create(model, &options, &program, &err) != SDX_OK) {
        if (!err.message[0]) abort();
        return 0;
    }
    if (sdx_session_create(program, &session, &err) == SDX_OK) {
        for (int i = 0; i < 2; i++) sum += run(program, session, &state); /* again: other sizes, used memory */
        sdx_session_free(session);
    }
    sdx_program_free(program);
    return sum == 0xffffffff; /* never: keeps the reads alive */
}
