/* audio.c: WAV files (RIFF/WAVE: PCM of 8 to 32 bits, or floats) mixed to one channel, and a change of rate by
 * a windowed sinc: each output sample is the band-limited input at its time, cut off below the lower of the two
 * Nyquist frequencies (J. O. Smith, "Digital Audio Resampling"). */
#include "audio.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"

/* ---- WAV ------------------------------------------------------------------------------------------------- */

enum { FORMAT_PCM = 1, FORMAT_FLOAT = 3, FORMAT_EXTENSIBLE = 0xfffe };

typedef struct wav_format {
    int kind, channels, rate, block, bits;
} wav_format;

static uint32_t le(const unsigned char *p, int bytes)
{
    uint32_t x = 0;
    for (int i = bytes; i-- > 0;) x = x << 8 | p[i];
    return x;
}

/* The chunk of that name; false if there is none. Its size is cut at the file's end: recorders that write to a
 * pipe do not know it. */
static bool find_chunk(const unsigned char *bytes, size_t size, const char *name, const unsigned char **data,
                       size_t *n)
{
    for (size_t at = 12; at + 8 <= size;) {
        size_t length = le(bytes + at + 4, 4), rest = size - at - 8;
        *data = bytes + at + 8;
        *n = length < rest ? length : rest;
        if (!memcmp(bytes + at, name, 4)) return true;
        if (length >= rest) return false;
        at += 8 + length + (length & 1);
    }
    return false;
}

static sdx_status read_format(const char *path, const unsigned char *p, size_t n, wav_format *f, sdx_error *err)
{
    if (n < 16) return sdx_fail(err, SDX_ERR_FILE, "%s: its fmt chunk is cut off", path);
    *f = (wav_format){(int)le(p, 2), (int)le(p + 2, 2), 0, (int)le(p + 12, 2), (int)le(p + 14, 2)};
    uint32_t rate = le(p + 4, 4);
    if (f->kind == FORMAT_EXTENSIBLE && n >= 26)
        f->kind = (int)le(p + 24, 2); /* the subformat's first two bytes */
    bool pcm = f->kind == FORMAT_PCM && f->bits >= 8 && f->bits <= 32 && f->bits % 8 == 0;
    bool real = f->kind == FORMAT_FLOAT && (f->bits == 32 || f->bits == 64);
    if (!pcm && !real)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%s: WAV format %d with %d bits; PCM and float are supported",
                        path, f->kind, f->bits);
    if (f->channels < 1 || f->block != f->channels * f->bits / 8 || rate < SDX_AUDIO_MIN_RATE ||
        rate > SDX_AUDIO_MAX_RATE)
        return sdx_fail(err, SDX_ERR_FILE, "%s: %d channels, %u Hz, %d bytes a frame: not a sound", path,
                        f->channels, rate, f->block);
    f->rate = (int)rate;
    return SDX_OK;
}

/* One sample as a number in [-1, 1). */
static double sample(const unsigned char *p, const wav_format *f)
{
    if (f->kind == FORMAT_FLOAT && f->bits == 32) {
        float x;
        memcpy(&x, p, sizeof x);
        return x;
    }
    if (f->kind == FORMAT_FLOAT) {
        double x;
        memcpy(&x, p, sizeof x);
        return x;
    }
    if (f->bits == 8) return (p[0] - 128) / 128.0; /* the only unsigned one */
    uint32_t high = le(p, f->bits / 8) << (32 - f->bits);
    return (int32_t)high / 2147483648.0;
}

sdx_status sdx_audio_parse_wav(const char *path, const unsigned char *bytes, size_t size, float **samples,
                               size_t *count, int *rate, sdx_error *err)
{
    const unsigned char *data;
    size_t n;
    wav_format f = {0};
    if (size < 12 || memcmp(bytes, "RIFF", 4) || memcmp(bytes + 8, "WAVE", 4))
        return sdx_fail(err, SDX_ERR_FILE, "%s: not a WAV file", path);
    if (!find_chunk(bytes, size, "fmt ", &data, &n))
        return sdx_fail(err, SDX_ERR_FILE, "%s: has no fmt chunk", path);
    TRY(read_format(path, data, n, &f, err));
    if (!find_chunk(bytes, size, "data", &data, &n))
        return sdx_fail(err, SDX_ERR_FILE, "%s: has no data chunk", path);
    size_t frames = n / (size_t)f.block;
    float *out = sdx_malloc(frames * sizeof *out);
    if (!out) return sdx_fail_memory(err, frames * sizeof *out);
    for (size_t i = 0; i < frames; i++) {
        double sum = 0;
        for (int c = 0; c < f.channels; c++) sum += sample(data + i * (size_t)f.block + c * (f.bits / 8), &f);
        out[i] = (float)(sum / f.channels);
    }
    *samples = out;
    *count = frames;
    *rate = f.rate;
    return SDX_OK;
}

sdx_status sdx_audio_read_wav(const char *path, float **samples, size_t *count, int *rate, sdx_error *err)
{
    sdx_file_map map;
    TRY(sdx_file_map_open(path, &map, err));
    sdx_status status = sdx_audio_parse_wav(path, map.data, map.size, samples, count, rate, err);
    sdx_file_map_close(&map);
    return status;
}

/* ---- resampling ------------------------------------------------------------------------------------------ */

static const double pi = 3.14159265358979323846;
/* A Kaiser window of beta 10 leaves 1e-5 of what is stopped and falls within a tenth of the pass band; the cutoff is so
 * that nothing above the lower Nyquist frequency folds back. */
enum { ZERO_CROSSINGS = 64 };       /* of the sinc, each side */
static const double rolloff = 0.95; /* of the lower Nyquist frequency: the middle of the fall */
static const double kaiser_beta = 10;

/* The modified Bessel function of order 0, by its series. */
static double bessel_i0(double x)
{
    double sum = 1, term = 1;
    for (int k = 1; term > 1e-17 * sum; k++) {
        term *= x / (2 * k) * (x / (2 * k));
        sum += term;
    }
    return sum;
}

/* sin(pi x)/(pi x) under the window, which ends at ZERO_CROSSINGS. */
static double windowed_sinc(double x)
{
    double along = x / ZERO_CROSSINGS;
    if (fabs(along) >= 1) return 0;
    double window = bessel_i0(kaiser_beta * sqrt(1 - along * along)) / bessel_i0(kaiser_beta);
    return x == 0 ? window : sin(pi * x) / (pi * x) * window;
}

static int common_divisor(int a, int b) { return b ? common_divisor(b, a % b) : a; }

/* Output sample i lies at input i * from / to: between samples the same few phases come back again and again, each with
 * its filter. tap: [phases, taps]; the first tap of phase p is for input floor(p * from / to) - half. */
typedef struct filter {
    int64_t phases, taps, half;
    float *tap;
} filter;

/* count: of the output; no phase beyond is made. */
static sdx_status make_filter(filter *f, int from, int to, size_t count, double cutoff, sdx_error *err)
{
    f->half = (int64_t)ceil(ZERO_CROSSINGS / cutoff);
    f->taps = 2 * f->half + 2;
    f->phases = to / common_divisor(from, to);
    if (f->phases > (int64_t)count) f->phases = (int64_t)count + 1;
    f->tap = sdx_malloc((size_t)(f->phases * f->taps) * sizeof *f->tap);
    if (!f->tap) return sdx_fail_memory(err, (size_t)(f->phases * f->taps) * sizeof *f->tap);
    for (int64_t p = 0; p < f->phases; p++) {
        double between = (double)(p * from % to) / to; /* of the sample before and the one after */
        for (int64_t t = 0; t < f->taps; t++)
            f->tap[p * f->taps + t] = (float)(cutoff * windowed_sinc(((double)(t - f->half) - between) * cutoff));
    }
    return SDX_OK;
}

static float filtered(const filter *f, const float *in, int64_t count, int64_t i, int from, int to)
{
    const float *tap = f->tap + i % f->phases * f->taps;
    int64_t first = i * from / to - f->half;
    int64_t begin = first < 0 ? -first : 0, end = count - first < f->taps ? count - first : f->taps;
    double sum = 0;
    for (int64_t t = begin; t < end; t++) sum += (double)in[first + t] * tap[t];
    return (float)sum;
}

sdx_status sdx_audio_resample(const float *in, size_t count, int from, int to, float **out, size_t *out_count,
                              sdx_error *err)
{
    filter f;
    size_t n = (size_t)(((double)count * to) / from + 0.5);
    float *y = sdx_malloc((n + 1) * sizeof *y);
    if (!y) return sdx_fail_memory(err, n * sizeof *y);
    sdx_status status = make_filter(&f, from, to, n, rolloff * (from > to ? (double)to / from : 1), err);
    if (status != SDX_OK) {
        free(y);
        return status;
    }
    for (size_t i = 0; i < n; i++) y[i] = filtered(&f, in, (int64_t)count, (int64_t)i, from, to);
    free(f.tap);
    *out = y;
    *out_count = n;
    return SDX_OK;
}
