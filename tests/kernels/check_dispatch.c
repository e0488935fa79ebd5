/* check_dispatch.c: tables are full, caps hold, names come back. */
#include "kcheck.h"

static void tables(const context *c)
{
    const sdx_kernels *k = c->kernels;
    expect(k->isa == c->isa, "table of %s says %s", sdx_isa_name(c->isa), sdx_isa_name(k->isa));
    expect(k->gemm_f32.name && k->gemm_f32.run && k->gemm_f32.pack_b && k->gemm_f32.packed_bytes,
           "hole in gemm_f32");
    expect(k->gemm_f16.name && k->gemm_f16.run && k->gemm_f16.pack_b && k->gemm_f16.packed_bytes, "hole in gemm_f16");
    expect(k->gemm_int8.name && k->gemm_int8.run && k->gemm_int8.pack_b && k->gemm_int8.packed_bytes &&
               k->gemm_int8.packed_a_bytes,
           "hole in gemm_int8");
    for (int i = 0; i < SDX_UNARY_COUNT; i++) expect(k->element.unary_f32[i] != NULL, "no unary %d", i);
    for (int i = 0; i < SDX_BINARY_COUNT; i++) expect(k->element.binary_f32[i] != NULL, "no binary %d", i);
    expect(k->row.softmax_f32 && k->row.layer_norm_f32 && k->row.rms_norm_f32, "hole in row");
    expect(k->element.bias_act_f32 && k->element.f16_to_f32, "hole in element");
    expect(k->reduce.sum_f32 && k->reduce.max_f32 && k->reduce.min_max_f32 && k->reduce.max_rows_f32,
           "hole in reduce");
    expect(k->conv.depthwise_row_f32 != NULL, "hole in conv");
    expect(k->quantize.f32_u8 && k->quantize.f32_s8 && k->quantize.u8_f32 && k->quantize.s8_f32,
           "hole in quantize");
    expect(k->attention.workspace_bytes && k->attention.run_f32, "hole in attention");
}

static void names(const context *c)
{
    sdx_isa isa;
    for (int i = 0; i < SDX_ISA_COUNT; i++)
        expect(sdx_isa_parse(sdx_isa_name((sdx_isa)i), &isa) && (int)isa == i, "name of tier %d", i);
    expect(!sdx_isa_parse("avx1024", &isa), "avx1024 is no tier");
    expect(sdx_isa_available(SDX_ISA_SCALAR) && sdx_isa_available(sdx_isa_detect()),
           "detected tier unavailable");
    expect(sdx_kernels_get(SDX_ISA_COUNT)->isa == sdx_isa_detect(), "no cap gives the best");
    expect(sdx_kernels_get(c->isa) == c->kernels, "tables are not stable");
}

const check dispatch_checks[] = {{"dispatch tables", tables}, {"dispatch names", names}, {0}};
