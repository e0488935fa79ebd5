/* op.h: what an operator is. graph/ owns the type; the instances are the tables at the end of engine/ops/<family>.c.
 *
 * infer    types and shapes of the outputs from what is known of the inputs: symbolic at load, exact for a run.
 * prepare  once per node: attributes into a struct of the operator's own, constant weights packed.
 * plan     once per set of input shapes: how much workspace.
 * run      the numbers. Results never depend on the number of threads.
 * Each says only what is wrong; the caller puts file, node, operator, opset and input shapes in front.
 */
#ifndef SDX_OP_H
#define SDX_OP_H

#include "graph.h"

struct sdx_kernels;

enum sdx_op_flags {
    SDX_OP_VIEW = 1,    /* output 0 is input 0's bytes under another shape: run is never called on shared memory */
    SDX_OP_INPLACE = 2, /* output 0 may be written over input 0 (same dtype and count) */
    SDX_OP_DYNAMIC = 4, /* output shapes depend on values: run calls sdx_run_allocate for each output */
    SDX_OP_NONDETERMINISTIC = 8, /* never folded */
    SDX_OP_WIDE = 64,            /* computes in float32; float16 and bfloat16 are converted around it (engine/wide.c) */
    SDX_OP_ANY_VALUE = 32,       /* takes sequences and optionals; else they are refused before run */
    SDX_OP_ANY_ALIGNMENT = 16    /* constants may come unaligned from the mapped file; else they are copied first */
};

/* ---- infer ----------------------------------------------------------------------------------------------- */
typedef struct sdx_infer sdx_infer;
struct sdx_infer {
    sdx_model *model; /* for its symbols and opsets */
    const sdx_node *node;
    int n_in, n_out;
    const sdx_type *in; /* [n_in]; dtype SDX_UNDEFINED and shape unknown for an absent input */
    sdx_type *out;      /* [n_out], all unknown at the start; leave out what cannot be known */
    sdx_arena *arena;   /* for contents */
    sdx_error *err;
    /* Types of a subgraph's outputs, from those of its inputs; NULL when the run will tell. What is found of the
     * values inside stays with the subgraph, so the last call must be true of every run. A subgraph that fails
     * leaves its outputs unknown: it may never run. in: [graph->n_input], out: [graph->n_output]. */
    sdx_status (*body)(sdx_infer *infer, sdx_graph *graph, const sdx_type *in, sdx_type *out);
    const sdx_type *outer; /* of body: [n_value] of the graph around */
};

/* ---- prepare --------------------------------------------------------------------------------------------- */
typedef struct sdx_prepare {
    const sdx_model *model;
    const sdx_node *node;
    int n_in;
    const sdx_type *in; /* as inferred at load; .constant where the weight is known */
    const struct sdx_kernels *kernels;
    int threads;
    bool brief;       /* for a run or two: large weights stay where they are, and are packed in the run */
    sdx_arena *arena; /* lives as long as the program; zeroed, 64-byte aligned */
    struct sdx_late_weights *late; /* out: weights that may be packed later; NULL: none may */
    void *state;      /* out: handed to plan and run */
    unsigned packed;  /* out: bit i says input i was packed and its constant will not be read again */
    sdx_error *err;
} sdx_prepare;

/* ---- plan ------------------------------------------------------------------------------------------------ */
enum { SDX_PASTS = 3 };

typedef struct sdx_plan_step {
    const sdx_node *node;
    const void *state;
    int n_in, n_out;
    const sdx_type *in, *out; /* exact shapes */
    const struct sdx_kernels *kernels;
    int threads;
    size_t workspace; /* out: bytes, 64-byte aligned when handed to run */
    /* out: output i is [B,N,T,H]: input past[i] and new rows of T, and may lie in its memory (run->room); 0: no */
    int past[SDX_PASTS];
    sdx_error *err;
} sdx_plan_step;

/* ---- run ------------------------------------------------------------------------------------------------- */
typedef struct sdx_run sdx_run;
struct sdx_run {
    const sdx_node *node;
    const void *state;
    const struct sdx_kernels *kernels;
    int threads;
    int n_in, n_out;
    const sdx_tensor *in; /* [n_in]; dtype SDX_UNDEFINED when absent */
    sdx_tensor *out;      /* [n_out]; dtype SDX_UNDEFINED when nobody wants it; data set unless SDX_OP_DYNAMIC */
    void *workspace;      /* what plan asked for */
    int64_t room; /* not 0: every out[i] with a past is that past's memory, and heads begin `room` rows apart */
    /* SDX_OP_DYNAMIC: gives out[i] its dtype, shape and memory. */
    sdx_status (*allocate)(sdx_run *run, int i, sdx_dtype dtype, const sdx_shape *shape);
    /* SDX_OP_DYNAMIC: out[i] becomes a copy of a value of any kind. */
    sdx_status (*give)(sdx_run *run, int i, const sdx_tensor *value);
    /* SDX_OP_DYNAMIC: runs a subgraph of the node. Outputs are views until it runs again in the same slot, 0 or 1.
     * in: [graph->n_input], out: [graph->n_output]. */
    sdx_status (*run_body)(sdx_run *run, const sdx_graph *graph, int slot, const sdx_tensor *in, sdx_tensor *out);
    sdx_arena *scratch; /* SDX_OP_DYNAMIC: given back after the step */
    void *owner;        /* of the callbacks */
    sdx_error *err;
    sdx_arena *strings; /* for the characters of string outputs: lives as long as they do */
    uint64_t *steps_left; /* of the run: sdx_run_spend takes from them; NULL: there is no limit */
};

static inline bool sdx_run_has_in(const sdx_run *run, int i)
{
    return i < run->n_in && run->in[i].dtype != SDX_UNDEFINED;
}
static inline bool sdx_run_has_out(const sdx_run *run, int i)
{
    return i < run->n_out && run->out[i].dtype != SDX_UNDEFINED;
}

/* ---- the row --------------------------------------------------------------------------------------------- */
struct sdx_op_def {
    const char *domain; /* "" for ai.onnx */
    const char *name;
    int since, until; /* opset range, inclusive; until 0: still current */
    int min_in, max_in, min_out, max_out; /* max -1: any number */
    unsigned flags;
    sdx_status (*infer)(sdx_infer *infer);
    sdx_status (*prepare)(sdx_prepare *prepare); /* NULL: nothing to do */
    sdx_status (*plan)(sdx_plan_step *step);     /* NULL: no workspace */
    sdx_status (*run)(sdx_run *run);
};

typedef struct sdx_op_table {
    const char *family; /* file name without .c */
    const sdx_op_def *row;
    size_t count;
} sdx_op_table;

typedef struct sdx_op_registry {
    const sdx_op_table *const *table; /* [count] */
    size_t count;
} sdx_op_registry;

/* The row whose range covers the version, or NULL. Version 0 (domain not imported) is taken as 1. */
const sdx_op_def *sdx_op_find(const sdx_op_registry *registry, const char *domain, const char *name, int64_t version);
/* Sets node->def everywhere and checks input and output counts; all unknown operators go into one message. */
sdx_status sdx_model_resolve(sdx_model *model, const sdx_op_registry *registry, sdx_error *err);

/* ---- shape inference over a graph (shape_infer.c) ------------------------------------------------------------
 * Fills types[n_value] in node order. `types` starts as a copy of what is fixed: inputs (symbolic or exact) and
 * constants. Nodes without def leave their outputs unknown. */
sdx_status sdx_infer_graph(sdx_model *model, const sdx_graph *graph, sdx_type *types, sdx_arena *arena, sdx_error *err);
/* The same into the graph's own values: what passes see. A size that cannot be known gets a symbol of its own, whose
 * name starts with '?': one value's unknown size is never taken for another's, and arithmetic with it goes on. Sizes
 * that a Reshape shows to be equal are equated, and unless model->assume_nothing sizes of graph inputs that meet
 * element by element too: model->assumed says which, for each run to check. */
sdx_status sdx_model_infer(sdx_model *model, sdx_error *err);
/* What a node's operator infers. One that is SDX_OP_WIDE sees half precision as float32, and gives it back. */
sdx_status sdx_op_infer(sdx_infer *infer);
static inline bool sdx_dtype_is_half(sdx_dtype dtype) { return dtype == SDX_F16 || dtype == SDX_BF16; }
/* One node; in and out are gathered from and merged into types. Adds the driver's context to failures. */
sdx_status sdx_infer_node(sdx_model *model, const sdx_node *node, sdx_type *types, sdx_arena *arena, sdx_error *err);
/* Puts 'file: node "x" (Op-13): ' in front of the sentence, and the input shapes behind. */
void sdx_node_error(const sdx_model *model, const sdx_node *node, const sdx_type *in, int n_in, sdx_error *err);

/* Contents of an integer input, from contents or from the constant; NULL when unknown. */
const sdx_element *sdx_type_contents(const sdx_type *type, int *count);
/* All contents as numbers into ints[capacity]; false when any is not known or there are too many. */
bool sdx_type_ints(const sdx_type *type, int capacity, int64_t *ints, int *count);

/* ---- functions (inline_functions.c) ---------------------------------------------------------------------- */

/* Replaces every node that calls a function of the model by the function's body. Nodes remember the opset that
 * their function imports. A function that calls itself, or a model that grows absurdly, is refused. */
sdx_status sdx_model_inline_functions(sdx_model *model, sdx_error *err);

/* ---- opsets (raise_opset.c) ------------------------------------------------------------------------------ */

/* The newest opset of standard operators that the model or a node inlined from a function asks for. */
int64_t sdx_model_newest_opset(const sdx_model *model);
/* Rewrites every standard node of an older opset so that it means the same in opset `to`; refuses what it cannot.
 * Types should be inferred. */
sdx_status sdx_model_raise_opset(sdx_model *model, int64_t to, sdx_error *err);

/* ---- passes ---------------------------------------------------------------------------------------------- */

/* Computes a node whose inputs are all constants; outputs' data from arena. */
typedef sdx_status (*sdx_eval_fn)(void *context, const sdx_model *model, const sdx_node *node, sdx_arena *arena,
                                  sdx_tensor *outputs, sdx_error *err);

typedef struct sdx_pass_context {
    sdx_model *model;
    const sdx_op_registry *registry;
    sdx_eval_fn eval; /* NULL: nothing can be folded */
    void *eval_context;
    int threads;   /* for copies of weights; 0: one */
    bool for_run;  /* inside the engine: forms that are never written to a file are allowed */
    bool standard; /* only standard operators, of the model's opset, come out */
    bool strict;   /* what the file's metadata allows beyond the standard is not done */
    bool skip_padding; /* graph outputs need not be right where the attention mask is 0 */
    size_t changes; /* rewrites made by the pass */
    sdx_error *err;
} sdx_pass_context;

typedef struct sdx_pass {
    const char *name;  /* "fuse_attention": its file in graph/passes/ */
    const char *about; /* one line for --help */
    sdx_status (*run)(sdx_pass_context *context, sdx_graph *graph);
} sdx_pass;

/* passes/passes.c: the ordered table. */
extern const sdx_pass sdx_passes[];
extern const size_t sdx_pass_count;
/* Resolves, infers, then runs the table in order (only: comma-separated names, NULL for all), inferring again after
 * a pass that changed something; rewrites use only standard operators and com.microsoft ones that ORT's CPU provider
 * has. */
sdx_status sdx_passes_run(sdx_pass_context *context, const char *only);

#endif
