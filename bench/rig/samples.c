#include "samples.h"

#include <stdio.h>
#include <stdlib.h>

void samples_add(Samples *samples, uint64_t ns) {
    if (samples->count == samples->room) {
        samples->room = samples->room > 0 ? samples->room * 2 : 1024;
        samples->ns = grown(samples->ns, samples->room * sizeof *samples->ns);
    }
    samples->ns[samples->count++] = ns;
}

static int ascending(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one;
    uint64_t b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* Of sorted samples, the one that so many of a hundred do not exceed. */
static double percentile_us(const Samples *samples, size_t percent) {
    if (samples->count == 0) {
        return 0.0;
    }
    size_t rank = (samples->count * percent + 99) / 100;
    return (double)samples->ns[rank - 1] / 1e3;
}

void samples_print(const char *name, Samples *samples) {
    if (samples->count > 0) {
        qsort(samples->ns, samples->count, sizeof *samples->ns, ascending);
    }
    printf(
        "\"%s\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}",
        name,
        percentile_us(samples, 50),
        percentile_us(samples, 90),
        percentile_us(samples, 99),
        percentile_us(samples, 100)
    );
}
