/* One HTTP/1.1 message after the other, as its bytes come: heads, lengths, chunks, and bodies that end with the connection. */
#ifndef HTTP_H
#define HTTP_H

#include "net.h"

typedef enum {
    HEAD,
    SIZED,        /* a body with a length */
    CHUNK_SIZE,   /* the line before a chunk */
    CHUNK_DATA,
    CHUNK_END,    /* the line end after a chunk */
    TRAILER,      /* lines after the last chunk */
    UNTIL_CLOSE,  /* a body without a length */
    COMPLETE,
} State;

typedef struct {
    State state;
    bool of_request;  /* without a length a request has no body, and an answer goes on until the connection closes */
    bool closes;      /* the connection is not used again */
    bool in_size;     /* still in the digits of a chunk's size, before any extension */
    Buffer head;      /* ends in a zero byte once it is whole */
    size_t left;      /* bytes of the body, or of the chunk; of a trailer's line, those seen */
} Reader;

/* Takes pieces of a body. */
typedef void Sink(void *of, const char *bytes, size_t length);

/* Ready for the next message of the same connection. */
void reader_start(Reader *reader, bool of_request);

/* Takes bytes up to the end of the message, and gives how many that were. */
size_t reader_feed(Reader *reader, const char *bytes, size_t length, Sink *sink, void *of);

void reader_free(Reader *reader);

#endif
