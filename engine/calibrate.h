/* calibrate.h: the float model run for the quantizer: cases of its own, or made up. */
#ifndef SDX_ENGINE_CALIBRATE_H
#define SDX_ENGINE_CALIBRATE_H

#include "../quant/histogram.h"
#include "../quant/quant.h"
#include "engine.h"

enum { SDX_MADE_UP_INPUTS = 8 };

/* cases.c: a source of cases of random tokens. */
typedef struct sdx_made_up {
    int64_t vocabulary;
    uint64_t state;
    int made;
    const char *name[SDX_MADE_UP_INPUTS]; /* the model's */
    sdx_tensor input[SDX_MADE_UP_INPUTS]; /* owned data */
    size_t n_input;
} sdx_made_up;

/* False when the model has inputs that cannot be made up. fini either way. */
bool sdx_made_up_init(sdx_made_up *m, const sdx_model *model);
void sdx_made_up_fini(sdx_made_up *m);
sdx_status sdx_made_up_next(void *context, sdx_case *out, sdx_error *err);

/* The case in memory of its own, one block to free; false when out of memory. */
bool sdx_case_copy(const sdx_case *from, sdx_case *out, void **block);

/* calibrate.c: what the cases show of the values that the quantizer wants to know. */
typedef struct sdx_watched {
    char *name;     /* owned */
    sdx_histogram *histogram; /* of a static form. Owned */
    float *rows;    /* [n_row, width]: the first few. Owned */
    int64_t n_row, width;
} sdx_watched;

typedef struct sdx_calibration {
    sdx_watched *watched;     /* [n_watched]. Owned */
    sdx_quant_sample *sample; /* [n_watched], views of the former. Owned */
    size_t n_watched, cases;
    sdx_case *kept; /* [n_kept] the first few cases, when layers are to be compared */
    void **block;   /* [n_kept] their memory. Both owned */
    size_t n_kept;
} sdx_calibration;

sdx_status sdx_calibration_run(const sdx_quantize_options *options, sdx_calibration *c, sdx_error *err);
void sdx_calibration_fini(sdx_calibration *c);

/* sensitivity.c: values whose nodes stay in float. */
typedef struct sdx_excluded {
    char **name; /* [count]. Owned */
    size_t count;
} sdx_excluded;

/* The options' report (*table: free() it) and target, measured on the kept cases. */
sdx_status sdx_sensitivity_study(const sdx_quantize_options *options, const sdx_calibration *c, char **table,
                                 sdx_excluded *excluded, sdx_error *err);

#endif
