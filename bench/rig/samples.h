/* Times that were measured, and their percentiles. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include "net.h"

typedef struct {
    uint64_t *ns;
    size_t count;
    size_t room;
} Samples;

void samples_add(Samples *samples, uint64_t ns);

/* Prints a member of a JSON object: microseconds at percentiles, all 0 where nothing was measured. */
void samples_print(const char *name, Samples *samples);

#endif
