/* engine.h: what the files of engine/ share.
 *
 *   program  a model compiled for this machine: graph rewritten, weights packed; read-only once made
 *   plan     a program at one set of input shapes: exact types, the steps that remain, where every value lives
 *   session  the memory of one run at a time, and the last few plans
 *
 * A value's bytes are found through its root: a view and an operator that works in place have the root of their
 * input 0, everything else is its own. The root's home says who holds the memory.
 */
#ifndef SDX_ENGINE_H
#define SDX_ENGINE_H

#include <pthread.h>

#include "../graph/op.h"
#include "../kernels/kernels.h"

struct sdx_program {
    sdx_model *model; /* owned */
    sdx_arena arena;  /* states, packed weights, aligned copies of constants */
    const sdx_kernels *kernels;
    int threads;
    bool profile;
    void **state;         /* [n_node] of the main graph: what prepare made */
    pthread_mutex_t lock; /* held while inferring: the model's symbol table may grow */
};

/* ---- plans ----------------------------------------------------------------------------------------------- */

typedef enum sdx_home {
    SDX_HOME_NONE,     /* not computed in this plan */
    SDX_HOME_INPUT,    /* the caller's memory, never written */
    SDX_HOME_CONSTANT, /* the file mapping or an arena, never written */
    SDX_HOME_BUFFER,   /* the session's working buffer, at a planned offset */
    SDX_HOME_HEAP      /* allocated by the run: shapes that only the run knows */
} sdx_home;

typedef struct sdx_step {
    sdx_id node;
    bool dynamic;         /* infer again in the run, with the tensors at hand */
    bool shares;          /* output 0 is a view of input 0 */
    bool *wanted;         /* [n_out] */
    sdx_tensor *in, *out; /* [n_in], [n_out]: filled in before each call */
    size_t workspace, workspace_offset;
    sdx_id
        release; /* first of the heap roots that nobody reads after this step, linked by plan->next_release */
} sdx_step;

typedef struct sdx_plan {
    sdx_arena arena; /* everything below, but for heap[] */
    const sdx_program *program;
    sdx_shape *key;       /* [n_input] */
    sdx_type *type;       /* [n_value], exact where the plan knows it */
    sdx_tensor *tensor;   /* [n_value]: the values of the current run */
    sdx_id *root;         /* [n_value] */
    sdx_home *home;       /* [n_value], valid for roots, as are the next four */
    int32_t *begin, *end; /* first and last step that needs the bytes; n_step: the caller does, after the run */
    size_t *offset;
    void **heap; /* owned */
    sdx_arena strings; /* characters of the run's string tensors */
    sdx_id *next_release;
    sdx_step *step;
    int n_step;
    size_t *output_copy; /* [n_output]: offset of the copy of an output that is an input or a constant; else
                            SDX_NO_COPY */
    size_t bytes;        /* of the working buffer */
} sdx_plan;

#define SDX_NO_COPY SIZE_MAX

/* input_shape: [graph->n_input], in the graph's order. */
sdx_status sdx_plan_create(const sdx_program *program, const sdx_shape *input_shape, sdx_plan **out,
                           sdx_error *err);
void sdx_plan_free(sdx_plan *plan);
void sdx_plan_release(sdx_plan *plan); /* gives back what the last run allocated */
static inline sdx_node *sdx_step_node(const sdx_plan *plan, const sdx_step *step)
{
    return &plan->program->model->graph->node[step->node];
}

/* ---- running --------------------------------------------------------------------------------------------- */

typedef struct sdx_profile { /* of one node */
    uint64_t runs;
    double seconds;
} sdx_profile;

/* Two tables: time by operator, and the slowest nodes. profile: [n_node] of the graph. */
sdx_status sdx_profile_format(const sdx_graph *graph, const sdx_profile *profile, uint64_t runs, char **text,
                              sdx_error *err);

/* input: [graph->n_input]. buffer: plan->bytes bytes. scratch: given back at the end. profile: [n_node] or
 * NULL. */
sdx_status sdx_plan_run(sdx_plan *plan, const sdx_tensor *input, unsigned char *buffer, sdx_arena *scratch,
                        sdx_profile *profile, sdx_error *err);
/* Graph output i after a run. */
sdx_tensor sdx_plan_output(const sdx_plan *plan, int i, unsigned char *buffer);

/* One node, here and now: shapes from the tensors at hand, memory from the caller. */
typedef struct sdx_call {
    sdx_model *model;
    const sdx_node *node;
    const void *state;
    const sdx_kernels *kernels;
    int threads;
    pthread_mutex_t *lock; /* NULL: nobody else uses the model */
    const sdx_tensor *in;  /* [n_in] */
    const bool *wanted;    /* [n_out] */
    sdx_tensor *out;       /* [n_out]: filled in */
    sdx_arena *scratch;    /* types and workspace */
    sdx_arena *strings;    /* characters of string outputs */
    /* Bytes for output i, SDX_ALIGN-aligned, or NULL when there are none. A view may be given its input's
     * bytes. */
    void *(*memory)(void *owner, int i, size_t bytes);
    void *owner;
    sdx_error *err;
} sdx_call;
sdx_status sdx_call_run(sdx_call *call);
/* An operator's failure, told with the shapes of its inputs. */
sdx_status sdx_call_error(const sdx_model *model, const sdx_node *node, const sdx_tensor *in, sdx_error *err);

/* Constant folding: an sdx_eval_fn. The context says how to compute. */
typedef struct sdx_eval_context {
    const sdx_kernels *kernels;
    int threads;
} sdx_eval_context;
sdx_status sdx_eval_node(void *context, const sdx_model *model, const sdx_node *node, sdx_arena *arena,
                         sdx_tensor *outputs, sdx_error *err);

/* Runs the file `original` and the rewritten model on made-up inputs; a difference is SDX_ERR_INTERNAL and
 * names the output. Takes the model over. */
sdx_status sdx_validate(const char *original, sdx_model *rewritten, sdx_error *err);

/* An input of the graph that the caller must give: not a weight listed among the inputs. */
static inline bool sdx_is_fed(const sdx_graph *graph, int i)
{
    return !graph->value[graph->input[i]].type.constant;
}

/* The kernels under the cap that option, sdx_set_isa or SARDONYX_ISA set, in this order. */
sdx_status sdx_kernels_choose(const char *option, const sdx_kernels **out, sdx_error *err);

/* Elements can be read where they lie. */
static inline bool sdx_is_aligned(const sdx_tensor *t)
{
    size_t size = sdx_dtype_size(t->dtype);
    return !size || (uintptr_t)t->data % size == 0;
}

static const sdx_tensor sdx_absent = {.dtype = SDX_UNDEFINED};
static const sdx_type sdx_unknown_type = {.shape = {.rank = -1}};

#endif
