/* recurrent.h: the cells of recurrent.c: what one time step of one direction computes. */
#ifndef SDX_OPS_RECURRENT_H
#define SDX_OPS_RECURRENT_H

#include "linear.h"

enum { MAX_ACTIVATIONS = 3 };

typedef struct sdx_cell_function {
    const char *name;
    int kernel; /* sdx_unary, or -1 */
    float (*f)(float x, float alpha, float beta);
    float alpha, beta; /* defaults; NAN: it has none */
} sdx_cell_function;

typedef struct sdx_cell_activation {
    const sdx_cell_function *function;
    float alpha, beta;
} sdx_cell_activation;

typedef struct sdx_cell_step sdx_cell_step;
typedef struct sdx_cell {
    const char *op;
    int gates, activations;
    const char *usual[MAX_ACTIVATIONS];
    void (*run)(const sdx_cell_step *s);
    bool rounded; /* DynamicQuantizeLSTM */
} sdx_cell;

typedef struct sdx_recurrent {
    const sdx_cell *cell;
    int directions;
    bool reverse; /* the first direction runs backwards */
    bool batch_first, input_forget, linear_before_reset;
    float clip; /* INFINITY: none */
    sdx_cell_activation activation[2][MAX_ACTIVATIONS];
} sdx_recurrent;

/* What a cell sees of one time step of one direction. gates: [B, G*H], the input's share when the cell begins.
 */
struct sdx_cell_step {
    const sdx_run *run;
    const sdx_recurrent *state;
    const sdx_cell_activation *activation;
    int64_t batch, hidden;
    const float *r, *r_last; /* packed R; GRU: of the first two gates, and of the third */
    const float *r_bias;     /* [H] GRU with linear_before_reset: bias of the third gate's recurrent part */
    const float *peephole;   /* [3*H] or NULL */
    float *gates, *h, *c, *extra; /* [B, G*H], [B, H] each */
    uint8_t *bytes;               /* [B, H], or NULL: the state is not rounded */
};

/* By operator; there is one. */
const sdx_cell *sdx_cell_find(const sdx_node *node);
sdx_status sdx_cell_find_function(const char *name, const sdx_cell_function **out, sdx_error *err);
/* x [n] -> y, as DynamicQuantizeLinear and DequantizeLinear give it back; bytes: room for [n] */
void sdx_cell_round(const sdx_run *run, int64_t n, const float *x, uint8_t *bytes, float *y);

#endif
