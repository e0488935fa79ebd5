/* fourier.c: see fourier.h */
#include "fourier.h"

#include <math.h>
#include <string.h>

#include "../../base/memory.h"

static const double pi = 3.14159265358979323846;

static sdx_complex times(sdx_complex a, sdx_complex b)
{
    return (sdx_complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

static sdx_complex conjugate(sdx_complex a)
{
    return (sdx_complex){a.re, -a.im};
}

static sdx_complex unit_root(double turns) /* e^(-2 pi i turns) */
{
    return (sdx_complex){cos(2 * pi * turns), -sin(2 * pi * turns)};
}

static int64_t padded_length(int64_t n)
{
    int64_t p = 1;
    while (p < n) p *= 2;
    return p == n ? n : p < 2 * n - 1 ? 2 * p : p;
}

bool sdx_fourier_bytes(int64_t n, size_t *tables, size_t *scratch)
{
    if (n < 0 || n > INT32_MAX) return false;
    size_t padded = 1;
    while (padded < 2 * (size_t)n) padded *= 2;
    *tables = (padded / 2 + 1 + (size_t)n + padded) * sizeof(sdx_complex);
    *scratch = padded * sizeof(sdx_complex);
    return true;
}

/* In place, decimation in time: bits of the index reversed, then butterflies of growing width. */
static void radix2(const sdx_complex *root, int64_t n, sdx_complex *x)
{
    for (int64_t i = 1, j = 0; i < n; i++) {
        int64_t bit = n >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i >= j) continue;
        sdx_complex t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
    for (int64_t half = 1; half < n; half *= 2)
        for (int64_t begin = 0; begin < n; begin += 2 * half)
            for (int64_t k = 0; k < half; k++) {
                sdx_complex a = x[begin + k], b = times(x[begin + k + half], root[k * (n / (2 * half))]);
                x[begin + k] = (sdx_complex){a.re + b.re, a.im + b.im};
                x[begin + k + half] = (sdx_complex){a.re - b.re, a.im - b.im};
            }
}

void sdx_fourier_init(sdx_fourier *f, int64_t n, void *memory)
{
    *f = (sdx_fourier){.n = n, .padded = padded_length(n), .root = memory};
    for (int64_t k = 0; k < f->padded / 2; k++) f->root[k] = unit_root((double)k / (double)f->padded);
    if (f->padded == n) return;
    f->chirp = f->root + f->padded / 2 + 1;
    f->response = f->chirp + n;
    memset(f->response, 0, (size_t)f->padded * sizeof *f->response);
    for (int64_t k = 0; k < n; k++) {
        /* k^2 modulo 2n: the angle stays exact. */
        f->chirp[k] =
            unit_root((double)(int64_t)((uint64_t)k * (uint64_t)k % (uint64_t)(2 * n)) / (double)(2 * n));
        f->response[k] = conjugate(f->chirp[k]);
        if (k > 0) f->response[f->padded - k] = f->response[k];
    }
    radix2(f->root, f->padded, f->response);
}

/* jk = (j^2 + k^2 - (j - k)^2) / 2 turns the sum into a convolution with the chirp. */
static void bluestein(const sdx_fourier *f, sdx_complex *x, sdx_complex *a)
{
    memset(a, 0, (size_t)f->padded * sizeof *a);
    for (int64_t k = 0; k < f->n; k++) a[k] = times(x[k], f->chirp[k]);
    radix2(f->root, f->padded, a);
    for (int64_t k = 0; k < f->padded; k++)
        a[k] = conjugate(times(a[k], f->response[k])); /* inverse FFT by conjugates */
    radix2(f->root, f->padded, a);
    for (int64_t k = 0; k < f->n; k++) {
        x[k] = times(conjugate(a[k]), f->chirp[k]);
        x[k].re /= (double)f->padded;
        x[k].im /= (double)f->padded;
    }
}

void sdx_fourier_run(const sdx_fourier *f, bool inverse, sdx_complex *x, void *scratch)
{
    for (int64_t k = 0; inverse && k < f->n; k++) x[k] = conjugate(x[k]);
    if (f->chirp)
        bluestein(f, x, scratch);
    else
        radix2(f->root, f->n, x);
    for (int64_t k = 0; inverse && k < f->n; k++) x[k] = conjugate(x[k]);
}
