/* engine.h: what the files of engine/ share.
 *
 *   program  a model compiled for this machine: graphs rewritten, weights packed, the large ones when it runs for the
 *            second time; read-only but for that
 *   body     one graph of a program: the model's own, or the one that an If, Loop, ... carries
 *   plan     a body at one set of input shapes: exact types, the steps that remain, where every value lives
 *   frame    the memory of one body's run, and its last few plans
 *   session  frames for all bodies of a program
 *
 * A value's bytes are found through its root: a view and an operator that works in place have the root of their
 * input 0, everything else is its own. The root's home says who holds the memory.
 */
#ifndef SDX_ENGINE_H
#define SDX_ENGINE_H

#include <pthread.h>

#include "../base/sequence.h"
#include "../graph/op.h"
#include "../kernels/kernels.h"

/* A graph made ready to run. It is given the values in feed[]: the graph's inputs in order (those that are
 * constants are skipped), then what it captures from the graph around it. */
typedef struct sdx_body {
    const struct sdx_program *program;
    const sdx_graph *graph;
    void **state; /* [n_node]: what prepare made */
    sdx_id *feed; /* [n_feed], the first graph->n_input of them inputs */
    int n_feed;
    int *model_input; /* [n_feed]: the input of the model that it is, or -1 */
    bool *late;       /* [n_input]: read by graphs that nodes carry only, which may not run */
} sdx_body;

struct sdx_program {
    sdx_model *model; /* owned */
    sdx_arena arena;  /* states, packed weights, aligned copies of constants */
    const sdx_kernels *kernels;
    int threads;
    bool profile, brief;
    uint64_t max_steps; /* of a run; UINT64_MAX: no limit */
    sdx_body *body;     /* [n_body] by graph->index; .graph NULL: a function's, never run as such */
    int n_body;
    struct sdx_late_weights *late; /* weights that a second run packs */
    struct sdx_prepared *prepared; /* nodes with large packed weights, newest first: their states are shared */
    pthread_mutex_t lock; /* held while inferring, as the model's symbol table may grow, packing late, making apart */
    bool from_file;               /* the model is what its file says, so that the file can be compiled again */
    sdx_run_options options;      /* for that */
    struct sdx_program *apart;    /* owned, of the same mapping, NULL until needed: see apart.c */
};

/* ---- when sizes differ that were taken as one (apart.c) --------------------------------------------------- */

/* The file that the program was made of can be compiled once more, with these options. */
sdx_status sdx_program_keep_options(sdx_program *program, const sdx_run_options *options, sdx_error *err);
/* A program of the same file that assumes nothing; the first call makes it. *out: NULL where there is no file. */
sdx_status sdx_program_find_apart(const sdx_program *program, const sdx_program **out, sdx_error *err);

static inline const sdx_body *sdx_program_main(const sdx_program *program)
{
    return &program->body[program->model->graph->index];
}

/* A session, whose inputs fit, is about to run. */
void sdx_program_begin_run(const sdx_program *program);

/* ---- plans ----------------------------------------------------------------------------------------------- */

typedef enum sdx_home {
    SDX_HOME_NONE,     /* not computed in this plan */
    SDX_HOME_INPUT,    /* fed: the caller's memory, never written */
    SDX_HOME_KEPT,     /* fed: the session's, appended to; the home of past and present */
    SDX_HOME_CONSTANT, /* the file mapping or an arena, never written */
    SDX_HOME_BUFFER,   /* the session's working buffer, at a planned offset */
    SDX_HOME_HEAP      /* allocated by the run: shapes that only the run knows */
} sdx_home;

typedef struct sdx_work_rule sdx_work_rule; /* work.c */

typedef struct sdx_step {
    sdx_id node;
    bool dynamic;         /* infer again in the run, with the tensors at hand */
    bool shares;          /* output 0 is a view of input 0 */
    int past[SDX_PASTS];  /* in the plan of a session that keeps: output o is written behind input past[o]; or 0 */
    int64_t room;         /* of all these, see sdx_run */
    bool *wanted;         /* [n_out] */
    sdx_tensor *in, *out; /* [n_in], [n_out]: filled in before each call */
    const sdx_work_rule *work; /* how its arithmetic is counted; NULL: it has none to speak of */
    size_t workspace, workspace_offset;
    sdx_id
        release; /* first of the heap roots that nobody reads after this step, linked by plan->next_release */
} sdx_step;

typedef struct sdx_block {
    void *data;
    size_t bytes;
} sdx_block;

#define SDX_SPARES 16

typedef struct sdx_plan {
    sdx_arena arena; /* everything below, but for heap[], spare[] and output_value[] */
    const sdx_body *body;
    sdx_tensor *key;      /* [n_feed]: type and shape; SDX_UNDEFINED: not given */
    sdx_type *type;       /* [n_value], exact where the plan knows it */
    sdx_tensor *tensor;   /* [n_value]: the values of the current run */
    sdx_id *root;         /* [n_value] */
    sdx_home *home;       /* [n_value], valid for roots, as are the next four */
    int32_t *begin, *end; /* first and last step that needs the bytes; n_step: the caller does, after the run */
    size_t *offset;
    sdx_block *heap;             /* [n_value], owned */
    sdx_block spare[SDX_SPARES]; /* owned: small ones that steps or runs before had, for those that come */
    unsigned next_spare;         /* the one that has been there for longest */
    sdx_arena strings; /* characters of the run's string tensors */
    sdx_id *next_release;
    sdx_step *step;
    int n_step;
    int *append;         /* [keeper->count]: the step that appends to what is kept, -1: none does */
    size_t *output_copy; /* [n_output]: offset of the copy of an output that is an input or a constant, or a
                            code below */
    sdx_tensor *output_value; /* [n_output]: the copy made on the heap; its data is owned */
    size_t bytes;        /* of the working buffer */
} sdx_plan;

#define SDX_NO_COPY   SIZE_MAX
#define SDX_HEAP_COPY (SIZE_MAX - 1) /* its size is known only after the run */

/* ---- what a session keeps (kept.c) ----------------------------------------------------------------------- */

/* The value of graph output `output`, which is graph input `input` of the next run: [B,N,T,H], T grows. */
typedef struct sdx_kept {
    int input, output;
    sdx_tensor value; /* dim[0] and dim[2] valid; data owned: [B,N,room,H] */
    int64_t room;
    size_t bytes; /* of data */
} sdx_kept;

typedef struct sdx_keeper {
    sdx_kept *kept; /* [count], owned */
    int count;
    void *scratch; /* for rows that move; owned */
    size_t scratch_bytes;
} sdx_keeper;

void sdx_keeper_fini(sdx_keeper *keeper);
sdx_status sdx_keeper_add(sdx_keeper *keeper, const sdx_port *port, int input, int output, sdx_error *err);
/* value: dense. */
sdx_status sdx_kept_set(sdx_kept *kept, const sdx_tensor *value, sdx_error *err);
/* Row r of dimension 0 becomes what row[r] was. */
sdx_status sdx_keeper_reorder(sdx_keeper *keeper, const size_t *row, size_t rows, sdx_error *err);
/* Before a run of this plan: room where it appends, no gaps where it does not. */
sdx_status sdx_keeper_prepare(sdx_keeper *keeper, sdx_plan *plan, sdx_error *err);
/* After it. buffer: that of the run. */
sdx_status sdx_keeper_take(sdx_keeper *keeper, const sdx_plan *plan, unsigned char *buffer, sdx_error *err);

/* ---- making plans ---------------------------------------------------------------------------------------- */

/* feed: [body->n_feed], of which only type and shape count. keeper: of the session, for the main graph; or NULL. */
sdx_status sdx_plan_create(const sdx_body *body, const sdx_tensor *feed, const sdx_keeper *keeper, sdx_plan **out,
                           sdx_error *err);
void sdx_plan_free(sdx_plan *plan);
void sdx_plan_release(sdx_plan *plan); /* gives back what the last run allocated */
void *sdx_plan_take_block(sdx_plan *plan, sdx_id v, size_t bytes); /* plan->heap[v]; NULL when the system has none */
void sdx_plan_give_block(sdx_plan *plan, sdx_id v);
static inline sdx_node *sdx_step_node(const sdx_plan *plan, const sdx_step *step)
{
    return &plan->body->graph->node[step->node];
}

/* ---- running --------------------------------------------------------------------------------------------- */

typedef struct sdx_profile { /* of one node */
    uint64_t runs;
    double seconds;
} sdx_profile;

/* Two tables: time by operator, and the slowest nodes, subgraphs' among them. profile: [n_body][n_node]. */
sdx_status sdx_profile_format(const sdx_program *program, sdx_profile *const *profile, uint64_t runs, char **text,
                              sdx_error *err);

/* The arithmetic of a node, NULL if it has none; and that of one run of it, added to *work. */
const sdx_work_rule *sdx_work_find(const sdx_node *node);
void sdx_work_add(const sdx_work_rule *rule, const sdx_program *program, const sdx_graph *graph, const sdx_node *node,
                  const sdx_tensor *in, const sdx_tensor *out, sdx_work *work);

enum { SDX_PLANS = 8, SDX_SLOTS = 2 };

/* Where a body runs: its last few plans, for the input shapes that alternate, and the buffer they share. */
typedef struct sdx_frame {
    sdx_plan *plan[SDX_PLANS]; /* owned, most recently used first; the first one ran last */
    int n_plan;
    unsigned char *buffer; /* owned; contents live from one run to the next, for the outputs */
    size_t capacity;
    int oversized; /* runs in a row that needed less than a quarter */
} sdx_frame;

/* A size by name, and where it was seen first. */
typedef struct sdx_bound {
    sdx_dim symbol, size;
    int input;
} sdx_bound;

/* What the bodies of a program share while they run in one session. A body has two frames, so that a loop can
 * read the state that one turn left while the next turn writes its own. */
typedef struct sdx_context {
    const sdx_program *program;
    sdx_frame (*frame)[SDX_SLOTS]; /* [program->n_body], owned */
    sdx_arena scratch;             /* of the steps under way */
    sdx_profile **profile;         /* [n_body][n_node], owned; NULL when the program does not ask for it */
    double told; /* seconds that the profile has been told of: a node with a subgraph counts the rest */
    sdx_keeper keeper;             /* what the main graph's runs leave to each other */
    uint64_t steps_left;           /* of this run */
    sdx_work work;                 /* of this run, subgraphs' included */
    sdx_bound *bound;              /* owned */
    int n_bound;
    bool apart; /* this run failed because of sizes that were only taken as equal, and one of them is 1 */
} sdx_context;

sdx_status sdx_context_init(sdx_context *context, const sdx_program *program, sdx_error *err);
void sdx_context_fini(sdx_context *context);
/* The model's input i is this: where its declaration has names for sizes, each is one size in a run. Inputs that
 * only graphs inside nodes read count when one of those runs: a decoder without cache is fed an empty one. */
sdx_status sdx_context_bind(sdx_context *context, int input, const sdx_tensor *given, sdx_error *err);
/* Finds or makes the plan of a run and its buffer: frame->plan[0]. feed: [body->n_feed], type and shape. */
sdx_status sdx_frame_plan(sdx_context *context, const sdx_body *body, int slot, const sdx_tensor *feed, sdx_error *err);
/* That, and the run. */
sdx_status sdx_frame_run(sdx_context *context, const sdx_body *body, int slot, const sdx_tensor *feed, sdx_error *err);
/* Graph output i after a run: a view until the frame runs again. */
sdx_tensor sdx_frame_output(const sdx_frame *frame, int i);
/* Gives back what the last run allocated beside the buffer. */
void sdx_frame_release(sdx_frame *frame);

/* One run of a plan; buffer: plan->bytes bytes. */
sdx_status sdx_plan_run(sdx_plan *plan, sdx_context *context, const sdx_tensor *feed, unsigned char *buffer,
                        sdx_error *err);
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
    sdx_context *context; /* with plan: where the node's subgraphs run and what they capture; else NULL */
    const sdx_plan *plan;
    uint64_t *steps_left; /* of the run, for long work; NULL: there is no limit */
    bool told; /* out: the failure is that of a node inside a subgraph, which said where */
    sdx_error *err;
} sdx_call;
sdx_status sdx_call_run(sdx_call *call);

/* A node's prepare, plan and run, with half precision converted around an operator that is SDX_OP_WIDE (wide.c). */
sdx_status sdx_op_prepare(sdx_prepare *prepare); /* which the operator has */
sdx_status sdx_op_plan(sdx_plan_step *step);
sdx_status sdx_op_run(sdx_run *run);
#ifdef SDX_ALLOC_FAILURE
void sdx_row_ran(const sdx_op_def *def); /* rows.c */
#else
static inline void sdx_row_ran(const sdx_op_def *def) { (void)def; }
#endif
/* An operator's failure, told with the shapes of its inputs. */
sdx_status sdx_call_error(const sdx_model *model, const sdx_node *node, const sdx_tensor *in, sdx_error *err);

/* Constant folding: an sdx_eval_fn. The context says how to compute. */
typedef struct sdx_eval_context {
    const sdx_kernels *kernels;
    int threads;
    uint64_t steps_left; /* what takes longer stays for the run */
} sdx_eval_context;
enum { SDX_FOLD_STEPS = 10000 };
sdx_status sdx_eval_node(void *context, const sdx_model *model, const sdx_node *node, sdx_arena *arena,
                         sdx_tensor *outputs, sdx_error *err);

/* What a file answers to made-up inputs of two shapes, to compare a rewritten graph with. An original that fails on all
 * of them gives none: *out stays as it is, and *refused, empty before, tells why. */
typedef struct sdx_answers sdx_answers;
sdx_status sdx_answers_create(const char *original, const sdx_run_options *how, sdx_answers **out, sdx_error *refused,
                              sdx_error *err);
/* A difference is SDX_ERR_INTERNAL and names the output. Takes the model over. */
sdx_status sdx_answers_compare(sdx_answers *answers, sdx_model *rewritten, const sdx_run_options *how, sdx_error *err);
void sdx_answers_free(sdx_answers *answers);

/* After that: the first node of the rewritten graph that computes something else than the original graph does under the
 * same name, as text; empty when none can be told. Takes the model over. */
sdx_status sdx_find_divergence(const char *original, sdx_model *rewritten, const sdx_run_options *how, char *place,
                               size_t size, sdx_error *err);

/* An input of the graph that the caller must give: not a weight listed among the inputs. */
static inline bool sdx_is_fed(const sdx_graph *graph, int i)
{
    return !graph->value[graph->input[i]].type.constant;
}

/* The kernels under the cap that option, sdx_set_isa or SARDONYX_ISA set, in this order. */
sdx_status sdx_kernels_choose(const char *option, const sdx_kernels **out, sdx_error *err);
/* The same kernels with weights multiplied in another precision (sdx_run_options.precision); a copy in the arena. */
sdx_status sdx_kernels_set_precision(const char *precision, sdx_arena *arena, const sdx_kernels **kernels,
                                     sdx_error *err);
/* "fp32", "bf16" or "fp16". */
const char *sdx_kernels_precision(const sdx_kernels *kernels);

/* Elements can be read where they lie. */
static inline bool sdx_is_aligned(const sdx_tensor *t)
{
    size_t size = sdx_dtype_size(t->dtype);
    return !size || (uintptr_t)t->data % size == 0;
}

static const sdx_tensor sdx_absent = {.dtype = SDX_UNDEFINED};
static const sdx_type sdx_unknown_type = {.shape = {.rank = -1}};

#endif
