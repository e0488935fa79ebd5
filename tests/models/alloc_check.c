/* alloc_check.c: what happens when memory ends. Sees only the public interface, but for the switch of base/memory.h.
 *
 *     alloc_check MODEL.onnx...
 *
 * Each model is opened, compiled and run on zeros while the n-th allocation and all after it fail, for n = 1, 2, ...
 * in growing steps until nothing fails any more. Every failure must be a status with a sentence, and under ASan
 * nothing may leak. A build without -DSDX_ALLOC_FAILURE has nothing to check. Closes with "N passed, N failed". */
#include <stdio.h>
#include <stdlib.h>

#include "../../base/memory.h"
#include "../../include/sardonyx.h"

#ifdef SDX_ALLOC_FAILURE

enum { MOST_PORTS = 64, SMALL = 2, SAMPLES = 4000, STEPS_PER_DOUBLING = 24 };

static size_t count_of(const sdx_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->dim[i];
    return n;
}

/* Zeros: ids and masks that every model takes; sequences without items. */
static int make_input(const sdx_port *port, sdx_tensor *t)
{
    if (port->sequence) {
        *t = (sdx_tensor){.dtype = SDX_TENSOR_LIST, .data = calloc(1, sizeof(sdx_tensor_list))};
        return t->data != NULL;
    }
    *t = (sdx_tensor){.dtype = port->dtype, .rank = port->rank < 0 ? 0 : port->rank};
    bool audio = t->rank == 2 && t->dtype == SDX_F32; /* has to be longer than the strides of its convolutions */
    for (int i = 0; i < t->rank; i++) t->dim[i] = port->dim[i] >= 0 ? port->dim[i] : audio && i ? SAMPLES : SMALL;
    t->data = aligned_alloc(64, (count_of(t) * sdx_dtype_size(t->dtype) + 64) / 64 * 64);
    if (!t->data) return 0;
    for (size_t i = 0; i < count_of(t) * sdx_dtype_size(t->dtype); i++) ((char *)t->data)[i] = 0;
    return 1;
}

static sdx_status run_session(const sdx_program *program, sdx_session *session, sdx_error *err)
{
    const sdx_model *model = sdx_program_model(program);
    const char *name[MOST_PORTS];
    sdx_tensor in[MOST_PORTS], out[MOST_PORTS];
    size_t n = 0, n_in = sdx_model_input_count(model), n_out = sdx_model_output_count(model);
    if (n_in > MOST_PORTS || n_out > MOST_PORTS) return SDX_ERR_INTERNAL;
    for (size_t i = 0; i < n_in; i++) {
        sdx_port port = sdx_model_input(model, i);
        if (port.has_default || !make_input(&port, &in[n])) continue;
        name[n++] = port.name;
    }
    sdx_status status = SDX_OK;
    for (int round = 0; round < 2 && status == SDX_OK; round++)
        status = sdx_session_run(session, n, name, in, n_out, out, err);
    while (n > 0) free(in[--n].data);
    return status;
}

static sdx_status whole_life(const char *path, sdx_error *err)
{
    const sdx_run_options options = {.threads = 1};
    sdx_program *program;
    sdx_session *session = NULL;
    sdx_status status = sdx_program_open(path, &options, &program, err);
    if (status != SDX_OK) return status;
    status = sdx_session_create(program, &session, err);
    if (status == SDX_OK) status = run_session(program, session, err);
    sdx_session_free(session);
    sdx_program_free(program);
    return status;
}

/* The status with the n-th allocation failing; 0: none does. */
static sdx_status with_failure(const char *path, long n, sdx_error *err)
{
    *err = (sdx_error){0};
    sdx_alloc_fail_after(n);
    sdx_status status = whole_life(path, err);
    sdx_alloc_fail_after(0);
    return status;
}

static int check(const char *path)
{
    sdx_error err;
    if (with_failure(path, 0, &err) != SDX_OK) {
        printf("FAIL %s: %s\n", path, err.message);
        return 0;
    }
    sdx_alloc_fail_after(0);
    if (whole_life(path, &err) != SDX_OK) return 0;
    long total = sdx_alloc_count(), tried = 0;
    for (long n = 1; n <= total; n += 1 + n / STEPS_PER_DOUBLING, tried++) {
        sdx_status status = with_failure(path, n, &err);
        if (status == SDX_OK || err.message[0]) continue; /* passes may do without what they could not have */
        printf("FAIL %s: allocation %ld of %ld fails with status %d and no sentence\n", path, n, total, (int)status);
        return 0;
    }
    printf("%s: %ld of %ld allocations failed in turn\n", path, tried, total);
    return 1;
}

int main(int argc, char **argv)
{
    int passed = 0;
    for (int i = 1; i < argc; i++) passed += check(argv[i]);
    printf("%d passed, %d failed\n", passed, argc - 1 - passed);
    return passed == argc - 1 ? 0 : 1;
}

#else

int main(void)
{
    puts("0 passed, 0 failed: this build has no failing allocations");
    return 0;
}

#endif
