/* What the engine says, as whole HTTP messages: each is made once, and sent as often as it is asked for. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "net.h"

/* A piece of a stream: where its time of sending is to be put. */
typedef struct {
    Buffer message;
    size_t stamp;
} Chunk;

typedef struct {
    Buffer completion;    /* not streamed */
    Buffer stream_head;
    Chunk middle;
    Chunk last;           /* says why it ends */
    Buffer stream_end;    /* usage, and that it is done */
    Buffer models;
    Buffer metrics;       /* as vLLM tells its load */
    Buffer health;        /* and whatever else is asked about the engine */
    Buffer unknown;       /* 404 */
} Answers;

Answers answers_make(void);

/* Where vLLM is asked for a prompt's tokens, it tells the number of each: as many as a prompt of these bytes has. */
void answer_render(Buffer *to, size_t prompt_bytes);

#endif
