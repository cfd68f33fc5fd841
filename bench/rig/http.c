#define _GNU_SOURCE
#include "http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void reader_start(Reader *reader, bool of_request) {
    Buffer head = reader->head;
    head.length = 0;
    *reader = (Reader){.of_request = of_request, .head = head};
}

void reader_free(Reader *reader) {
    buffer_free(&reader->head);
}

/* What stands after a header's name; the name is in lower case, between line end and colon. */
static const char *header(const Reader *reader, const char *name) {
    const char *found = strcasestr(reader->head.bytes, name);
    return found == NULL ? NULL : found + strlen(name) + strspn(found + strlen(name), " ");
}

static bool header_is(const Reader *reader, const char *name, const char *value) {
    const char *found = header(reader, name);
    return found != NULL && strncasecmp(found, value, strlen(value)) == 0;
}

static State after_head(Reader *reader) {
    reader->closes = header_is(reader, "\r\nconnection:", "close");
    if (header_is(reader, "\r\ntransfer-encoding:", "chunked")) {
        reader->left = 0;
        reader->in_size = true;
        return CHUNK_SIZE;
    }
    const char *length = header(reader, "\r\ncontent-length:");
    if (length != NULL) {
        reader->left = strtoul(length, NULL, 10);
        return reader->left > 0 ? SIZED : COMPLETE;
    }
    if (reader->of_request) {
        return COMPLETE;
    }
    reader->closes = true;
    return UNTIL_CLOSE;
}

static size_t feed_head(Reader *reader, const char *bytes, size_t length) {
    size_t had = reader->head.length;
    buffer_add(&reader->head, bytes, length);
    size_t from = had > 3 ? had - 3 : 0;  /* the end may have begun in what was there */
    char *end = memmem(reader->head.bytes + from, reader->head.length - from, "\r\n\r\n", 4);
    if (end == NULL) {
        return length;
    }
    reader->head.length = (size_t)(end - reader->head.bytes) + 4;
    size_t used = reader->head.length - had;
    buffer_add(&reader->head, "", 1);
    reader->state = after_head(reader);
    return used;
}

static int digit(char byte) {
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;  /* lower case */
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static void feed_size(Reader *reader, char byte) {
    if (byte == '\n') {
        reader->state = reader->left > 0 ? CHUNK_DATA : TRAILER;
    } else if (reader->in_size && digit(byte) >= 0) {
        reader->left = reader->left * 16 + (size_t)digit(byte);
    } else {
        reader->in_size = false;
    }
}

static void feed_chunk_end(Reader *reader, char byte) {
    if (byte == '\n') {
        reader->state = CHUNK_SIZE;
        reader->left = 0;
        reader->in_size = true;
    }
}

static void feed_trailer(Reader *reader, char byte) {
    if (byte == '\n' && reader->left == 0) {
        reader->state = COMPLETE;
    } else if (byte == '\n') {
        reader->left = 0;
    } else if (byte != '\r') {
        reader->left++;
    }
}

static size_t feed_counted(Reader *reader, const char *bytes, size_t length, Sink *sink, void *of) {
    size_t taken = length < reader->left ? length : reader->left;
    sink(of, bytes, taken);
    reader->left -= taken;
    if (reader->left == 0) {
        reader->state = reader->state == SIZED ? COMPLETE : CHUNK_END;
    }
    return taken;
}

/* One step: as many bytes as belong to what is being read. */
static size_t feed_some(Reader *reader, const char *bytes, size_t length, Sink *sink, void *of) {
    switch (reader->state) {
    case HEAD:
        return feed_head(reader, bytes, length);
    case SIZED:
    case CHUNK_DATA:
        return feed_counted(reader, bytes, length, sink, of);
    case CHUNK_SIZE:
        feed_size(reader, *bytes);
        return 1;
    case CHUNK_END:
        feed_chunk_end(reader, *bytes);
        return 1;
    case TRAILER:
        feed_trailer(reader, *bytes);
        return 1;
    case UNTIL_CLOSE:
        sink(of, bytes, length);
        return length;
    case COMPLETE:
        break;
    }
    return 0;
}

size_t reader_feed(Reader *reader, const char *bytes, size_t length, Sink *sink, void *of) {
    size_t used = 0;
    while (used < length && reader->state != COMPLETE) {
        used += feed_some(reader, bytes + used, length - used, sink, of);
    }
    return used;
}
