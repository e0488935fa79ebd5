/* planner.h: a plan in the making: plan.c finds its types and steps, plan_homes.c the memory of its values. */
#ifndef SDX_ENGINE_PLANNER_H
#define SDX_ENGINE_PLANNER_H

#include "engine.h"

typedef struct sdx_planner {
    sdx_plan *plan;
    const sdx_body *body;
    const sdx_program *program;
    const sdx_graph *graph;
    bool *needed; /* [n_value]: read by a live node or by the caller */
    bool *live;   /* [n_node] */
    const sdx_keeper *keeper; /* or NULL */
    sdx_error *err;
} sdx_planner;

static inline bool sdx_type_is_exact(const sdx_type *t)
{
    return t->dtype != SDX_UNDEFINED && sdx_shape_is_known(&t->shape);
}

/* Homes, lifetimes and offsets, when the steps are known. */
sdx_status sdx_planner_place(sdx_planner *b);

#endif
