/* test_audio.c: WAV files made by hand, and a sine at another rate against the sine itself. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef SDX_WITH_SNDFILE
#include <sndfile.h>
#include <unistd.h>
#endif

#include "../../include/sardonyx.h"
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

/* A sine is its own reference in double: what a sinc of endless length would give. */
START_TEST(keeps_what_both_rates_can_hold)
{
    static const int rates[] = {8000, 11025, 22050, 44100, 48000, 16001};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        ck_assert_double_lt(sine_error(440, rates[i], 16000, 1), 2e-5);
        ck_assert_double_lt(sine_error(3500, rates[i], 16000, 1), 2e-5);
        if (rates[i] > 16000) ck_assert_double_lt(sine_error(7100, rates[i], 16000, 1), 2e-5);
    }
    ck_assert_double_lt(sine_error(8000, 44100, 16000, 0), 2e-5); /* would fold back: to 8000 Hz, to 6000 Hz */
    ck_assert_double_lt(sine_error(10000, 44100, 16000, 0), 2e-5);
}
END_TEST

#ifdef SDX_WITH_SNDFILE
/* Two channels, 0.5 and -0.25 of a slow sine, whose mean comes back. Vorbis is not exact. */
static const struct {
    int format;
    double error;
} formats[] = {
    {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 1e-4},  {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 1e-7},
    {SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 1e-6},  {SF_FORMAT_OGG | SF_FORMAT_VORBIS, 0.05},
};

static void write_sound(char *path, int format, int frames)
{
    close(mkstemp(path));
    SNDFILE *file = sf_open(path, SFM_WRITE, &(SF_INFO){.samplerate = 22050, .channels = 2, .format = format});
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < frames; i++) {
        double x = sin(0.05 * i);
        sf_writef_double(file, (double[]){0.5 * x, -0.25 * x}, 1);
    }
    sf_close(file);
}

START_TEST(reads_files)
{
    enum { FRAMES = 22050 };
    char path[] = "/tmp/sardonyx-sound-XXXXXX";
    write_sound(path, formats[_i].format, FRAMES);
    float *samples;
    size_t count;
    int rate;
    ck_assert_int_eq(sdx_audio_read(path, &samples, &count, &rate, NULL), SDX_OK);
    ck_assert_int_eq(rate, 22050);
    ck_assert_uint_eq(count, FRAMES);
    for (size_t i = 0; i < count; i++)
        ck_assert_double_eq_tol(samples[i], 0.125 * sin(0.05 * (double)i), formats[_i].error);
    free(samples);
    unlink(path);
    ck_assert_int_eq(sdx_audio_read(path, &samples, &count, &rate, NULL), SDX_ERR_FILE);
}
END_TEST

/* Reads what is there, or says why not; never more than was written. Returns what it read, or -1. */
static int64_t read_hostile(const char *path, size_t most)
{
    float *samples;
    size_t count;
    int rate;
    sdx_error err = {0};
    if (sdx_audio_read(path, &samples, &count, &rate, &err) != SDX_OK) {
        ck_assert_uint_gt(strlen(err.message), 0);
        return -1;
    }
    ck_assert_uint_le(count, most);
    free(samples);
    return (int64_t)count;
}

static void put(const char *path, const unsigned char *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    fwrite(bytes, 1, size, f);
    fclose(f);
}

/* Cut off anywhere, and with each byte of the header set to 0 and to 255: sizes, rates, channels and lengths. */
START_TEST(survives_files)
{
    enum { FRAMES = 3000, ROOM = 1 << 16, HEADER = 64 };
    char path[] = "/tmp/sardonyx-sound-XXXXXX";
    write_sound(path, formats[_i].format, FRAMES);
    unsigned char *bytes = malloc(ROOM);
    FILE *f = fopen(path, "rb");
    size_t size = fread(bytes, 1, ROOM, f);
    fclose(f);
    ck_assert_int_eq(read_hostile(path, FRAMES), FRAMES);
    for (size_t n = 0; n < size; n += n < HEADER ? 1 : 997) {
        put(path, bytes, n);
        int64_t got = read_hostile(path, FRAMES);
        if ((formats[_i].format & SF_FORMAT_TYPEMASK) == SF_FORMAT_FLAC) ck_assert_int_eq(got, -1); /* it knows */
        else ck_assert_int_lt(got, FRAMES);
    }
    for (size_t i = 0; i < HEADER; i++) {
        unsigned char kept = bytes[i];
        for (int flip = 0; flip < 2; flip++) {
            bytes[i] = flip ? 255 : 0;
            put(path, bytes, size);
            read_hostile(path, (size_t)ROOM);
        }
        bytes[i] = kept;
    }
    free(bytes);
    unlink(path);
}
END_TEST
#endif

Suite *audio_suite(void);
Suite *audio_suite(void)
{
    Suite *s = suite_create("audio");
    TCase *c = tcase_create("all");
    tcase_add_loop_test(c, reads, 0, sizeof sounds / sizeof *sounds);
    tcase_add_loop_test(c, refuses, 0, sizeof refusals / sizeof *refusals);
#ifdef SDX_WITH_SNDFILE
    tcase_add_loop_test(c, reads_files, 0, sizeof formats / sizeof *formats);
    tcase_add_loop_test(c, survives_files, 0, sizeof formats / sizeof *formats);
#endif
    tcase_add_test(c, keeps_what_both_rates_can_hold);
    suite_add_tcase(s, c);
    return s;
}
