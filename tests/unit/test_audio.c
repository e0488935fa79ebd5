/* test_audio.c: WAV files made by hand, and a sine at another rate against the sine itself. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tasks/audio.h"

#define FMT(kind, channels, block, bits)                                                                       \
    "fmt \x10\0\0\0" kind "\0" channels "\0\x40\x1f\0\0\0\0\0\0" block "\0" bits "\0"
#define WAV "RIFF\0\0\0\0WAVE"

static const struct {
    const char *bytes;
    size_t size;
    size_t count;
    float want[2];
} sounds[] = {
#define SOUND(bytes, ...)                                                                                      \
    {                                                                                                          \
        bytes, sizeof bytes - 1, __VA_ARGS__                                                                   \
    }
    SOUND(WAV FMT("\1", "\1", "\2", "\x10") "data\4\0\0\0\0\x40\0\x80", 2, {0.5f, -1}),
    /* two channels, mixed; a chunk of odd size before */
    SOUND(WAV "LIST\1\0\0\0x\0" FMT("\1", "\2", "\4", "\x10") "data\4\0\0\0\0\x40\0\0", 1, {0.25f}),
    SOUND(WAV FMT("\1", "\1", "\1", "\x08") "data\2\0\0\0\x80\xc0", 2, {0, 0.5f}),
    SOUND(WAV FMT("\1", "\1", "\3", "\x18") "data\6\0\0\0\0\0\x40\0\0\xc0", 2, {0.5f, -0.5f}),
    SOUND(WAV FMT("\3", "\1", "\4", "\x20") "data\4\0\0\0\0\0\x80\x3e", 1, {0.25f}),
    /* a size that a pipe left open, and half a frame at the end */
    SOUND(WAV FMT("\1", "\1", "\2", "\x10") "data\xff\xff\xff\xff\0\x40\1", 1, {0.5f}),
};

START_TEST(reads)
{
    float *samples;
    size_t count;
    int rate;
    unsigned char *exact = malloc(sounds[_i].size); /* so that a sanitizer sees a read past the end */
    memcpy(exact, sounds[_i].bytes, sounds[_i].size);
    ck_assert_int_eq(sdx_audio_parse_wav("x", exact, sounds[_i].size, &samples, &count, &rate, NULL), SDX_OK);
    ck_assert_uint_eq(count, sounds[_i].count);
    ck_assert_int_eq(rate, 8000);
    for (size_t i = 0; i < count; i++) ck_assert_double_eq(samples[i], sounds[_i].want[i]);
    free(samples);
    /* however much of it is cut off, nothing is read that is not there */
    for (size_t n = 0; n < sounds[_i].size; n++) {
        unsigned char *part = malloc(n + 1);
        memcpy(part + 1, exact, n);
        if (sdx_audio_parse_wav("x", part + 1, n, &samples, &count, &rate, NULL) == SDX_OK) free(samples);
        free(part);
    }
    free(exact);
}
END_TEST

static const struct {
    const char *bytes;
    size_t size;
    const char *sentence;
} refusals[] = {
#define REFUSAL(bytes, sentence)                                                                               \
    {                                                                                                          \
        bytes, sizeof bytes - 1, sentence                                                                      \
    }
    REFUSAL("OggS\0\0\0\0\0\0\0\0\0\0", "not a WAV"),
    REFUSAL(WAV "data\0\0\0\0", "no fmt"),
    REFUSAL(WAV FMT("\1", "\1", "\2", "\x10"), "no data"),
    REFUSAL(WAV FMT("\2", "\1", "\2", "\x10") "data\0\0\0\0", "format 2"),
    REFUSAL(WAV FMT("\1", "\0", "\0", "\x10") "data\4\0\0\0\0\0\0\0", "not a sound"),
    REFUSAL(WAV FMT("\1", "\2", "\2", "\x10") "data\4\0\0\0\0\0\0\0", "not a sound"),
};

START_TEST(refuses)
{
    float *samples;
    size_t count;
    int rate;
    sdx_error err = {0};
    const unsigned char *bytes = (const unsigned char *)refusals[_i].bytes;
    ck_assert_int_ne(sdx_audio_parse_wav("x", bytes, refusals[_i].size, &samples, &count, &rate, &err), SDX_OK);
    ck_assert_msg(strstr(err.message, refusals[_i].sentence) != NULL, "%s", err.message);
}
END_TEST

/* The largest distance of a resampled sine of that frequency to `amplitude` times the same sine, ends left out.
 */
static double sine_error(double hz, int from, int to, double amplitude)
{
    size_t n = (size_t)from / 4, count;
    float *x = malloc(n * sizeof *x), *y;
    double worst = 0, turn = 2 * 3.14159265358979323846 * hz;
    for (size_t i = 0; i < n; i++) x[i] = (float)sin(turn * (double)i / from);
    ck_assert_int_eq(sdx_audio_resample(x, n, from, to, &y, &count, NULL), SDX_OK);
    ck_assert_uint_le(count, (size_t)to / 4 + 1);
    ck_assert_uint_ge(count + 1, (size_t)to / 4);
    for (size_t i = 200; i + 200 < count; i++)
        worst = fmax(worst, fabs(y[i] - amplitude * sin(turn * (double)i / to)));
    free(x);
    free(y);
    return worst;
}

START_TEST(keeps_what_both_rates_can_hold)
{
    static const int rates[] = {8000, 11025, 22050, 44100, 48000, 16001};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        ck_assert_double_lt(sine_error(440, rates[i], 16000, 1), 1e-3);
        ck_assert_double_lt(sine_error(3000, rates[i], 16000, 1), 1e-3);
    }
    ck_assert_double_lt(sine_error(10000, 44100, 16000, 0), 1e-3); /* would fold back to 6000 Hz */
}
END_TEST

Suite *audio_suite(void);
Suite *audio_suite(void)
{
    Suite *s = suite_create("audio");
    TCase *c = tcase_create("all");
    tcase_add_loop_test(c, reads, 0, sizeof sounds / sizeof *sounds);
    tcase_add_loop_test(c, refuses, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(c, keeps_what_both_rates_can_hold);
    suite_add_tcase(s, c);
    return s;
}
