/* An engine without a model: OpenAI-compatible, and quick enough to be no part of what is measured.
 *
 *     engine PORT...
 *
 * Each request says what it wants with fields that every gateway passes on: `max_tokens` chunks, the first at once, then one
 * each `seed` milliseconds, or as fast as they are taken where that is 0 or missing. Each chunk is one write and carries the time of it in its text.
 */
#define _GNU_SOURCE
#include "answers.h"
#include "http.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SLOTS = 16384,         /* of the wheel, a millisecond each: the longest time between two chunks */
    CHUNKS_DEFAULT = 16,
    NS_PER_MS = 1000000,
};

typedef struct Connection Connection;

/* A ring of connections; its head belongs to none. */
struct Connection {
    Connection *next;
    Connection *previous;
    int fd;
    bool listens;
    bool streams;
    bool ends;            /* with what is still to be written */
    bool in_wheel;
    bool waits_for_room;  /* to write */
    Reader reader;
    Buffer body;          /* of the request */
    Buffer out;           /* what the socket has not taken yet */
    long chunks_left;
    long gap_ms;
};

static Answers answers;
static Connection eager;         /* those whose next chunk goes out in this turn */
static Connection wheel[SLOTS];  /* those whose next chunk is due in that millisecond */
static uint64_t now_ms;          /* up to which chunks have been sent */
static long timed;               /* how many are in the wheel */
static int epoll;

static void ring_start(Connection *ring) {
    ring->next = ring;
    ring->previous = ring;
}

static bool ring_is_empty(const Connection *ring) {
    return ring->next == ring;
}

static void ring_add(Connection *ring, Connection *one) {
    one->next = ring;
    one->previous = ring->previous;
    ring->previous->next = one;
    ring->previous = one;
}

/* Also for one that is in no ring. */
static void ring_remove(Connection *one) {
    one->next->previous = one->previous;
    one->previous->next = one->next;
    ring_start(one);
}

static void unschedule(Connection *one) {
    timed -= one->in_wheel;
    one->in_wheel = false;
    ring_remove(one);
}

/* Its next chunk goes out after so long, or with the next turn of the loop. */
static void schedule(Connection *one, long after_ms) {
    if (after_ms == 0) {
        ring_add(&eager, one);
        return;
    }
    if (timed == 0) {
        now_ms = now_ns() / NS_PER_MS;  /* the wheel stood still while it was empty */
    }
    ring_add(&wheel[(now_ms + (uint64_t)after_ms) % SLOTS], one);
    one->in_wheel = true;
    timed++;
}

static Connection *connection_open(int fd, bool listens) {
    Connection *one = grown(NULL, sizeof *one);
    *one = (Connection){.fd = fd, .listens = listens};
    ring_start(one);
    reader_start(&one->reader, true);
    watch(epoll, fd, one);
    return one;
}

static void connection_close(Connection *one) {
    unschedule(one);
    close(one->fd);
    reader_free(&one->reader);
    buffer_free(&one->body);
    buffer_free(&one->out);
    free(one);
}

/* Sends, and keeps what there is no room for. False where the other side is gone. */
static bool put(Connection *one, const Buffer *message) {
    size_t sent = 0;
    if (one->out.length == 0) {
        ssize_t taken = send(one->fd, message->bytes, message->length, MSG_NOSIGNAL);
        if (taken < 0 && errno != EAGAIN) {
            return false;
        }
        sent = taken < 0 ? 0 : (size_t)taken;
    }
    if (sent < message->length) {
        buffer_add(&one->out, message->bytes + sent, message->length - sent);
    }
    if (one->out.length > 0 && !one->waits_for_room) {
        one->waits_for_room = true;
        watch_again(epoll, one->fd, one, true);
    }
    return true;
}

/* A number of the request; `otherwise` where it has none. A prompt cannot be mistaken for it: quotes in it are escaped. */
static long number_of(const Buffer *body, const char *name, long otherwise) {
    const char *found = memmem(body->bytes, body->length, name, strlen(name));
    if (found == NULL) {
        return otherwise;
    }
    found += strlen(name);
    found += strspn(found, " :");
    return *found >= '0' && *found <= '9' ? atol(found) : otherwise;
}

static bool is_streamed(const Buffer *body) {
    static const char name[] = "\"stream\"";
    const char *found = memmem(body->bytes, body->length, name, sizeof name - 1);
    return found != NULL && found[sizeof name - 1 + strspn(found + sizeof name - 1, " :")] == 't';
}

static bool start_stream(Connection *one) {
    one->streams = true;
    one->chunks_left = number_of(&one->body, "\"max_tokens\"", 0);
    if (one->chunks_left == 0) {
        one->chunks_left = number_of(&one->body, "\"max_completion_tokens\"", CHUNKS_DEFAULT);
    }
    one->gap_ms = number_of(&one->body, "\"seed\"", 0) % SLOTS;
    schedule(one, 0);
    return put(one, &answers.stream_head);
}

static bool render(Connection *one) {
    Buffer made = {0};
    answer_render(&made, one->body.length);
    bool alive = put(one, &made);
    buffer_free(&made);
    return alive;
}

static bool asks_for(const Connection *one, const char *path) {
    const char *end = strstr(one->reader.head.bytes, " HTTP/");
    size_t length = strlen(path);
    return end != NULL && (size_t)(end - one->reader.head.bytes) >= length && strncmp(end - length, path, length) == 0;
}

static bool answer(Connection *one) {
    if (strncmp(one->reader.head.bytes, "POST ", 5) == 0) {
        if (asks_for(one, "/chat/completions/render")) {
            return render(one);
        }
        if (!asks_for(one, "/chat/completions")) {
            return put(one, &answers.unknown);
        }
        return is_streamed(&one->body) ? start_stream(one) : put(one, &answers.completion);
    }
    if (asks_for(one, "/v1/models")) {
        return put(one, &answers.models);
    }
    return put(one, asks_for(one, "/metrics") ? &answers.metrics : &answers.health);
}

/* The next request may come. False where the connection is to end with this one. */
static bool next_request(Connection *one) {
    one->ends = one->reader.closes;
    reader_start(&one->reader, true);
    one->body.length = 0;
    return !one->ends || one->out.length > 0;
}

static void keep_body(void *of, const char *bytes, size_t length) {
    buffer_add(&((Connection *)of)->body, bytes, length);
}

/* False where the connection has to be closed: also if a request comes before the last one is answered, which no gateway does. */
static bool take(Connection *one, const char *bytes, size_t length) {
    if (one->streams) {
        return false;
    }
    size_t used = reader_feed(&one->reader, bytes, length, keep_body, one);
    if (one->reader.state != COMPLETE) {
        return true;
    }
    buffer_add(&one->body, "", 1);  /* numbers end, whatever comes last */
    if (used < length || !answer(one)) {
        return false;
    }
    return one->streams || next_request(one);
}

static bool read_some(Connection *one) {
    static char bytes[READ_BYTES];
    ssize_t length = recv(one->fd, bytes, sizeof bytes, 0);
    if (length < 0) {
        return errno == EAGAIN;
    }
    return length > 0 && take(one, bytes, (size_t)length);
}

static bool write_some(Connection *one) {
    ssize_t taken = send(one->fd, one->out.bytes, one->out.length, MSG_NOSIGNAL);
    if (taken < 0) {
        return errno == EAGAIN;
    }
    buffer_drop(&one->out, (size_t)taken);
    if (one->out.length > 0) {
        return true;
    }
    one->waits_for_room = false;
    watch_again(epoll, one->fd, one, false);
    if (one->streams && ring_is_empty(one)) {
        schedule(one, one->gap_ms);
    }
    return !one->ends;
}

static void accept_all(const Connection *listener) {
    int fd = accept_from(listener->fd);
    while (fd >= 0) {
        connection_open(fd, false);
        fd = accept_from(listener->fd);
    }
}

static void handle(Connection *one, uint32_t events) {
    if (one->listens) {
        accept_all(one);
        return;
    }
    bool alive = (events & EPOLLOUT) == 0 || write_some(one);
    if (alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        alive = read_some(one);
    }
    if (!alive) {
        connection_close(one);
    }
}

static bool end_stream(Connection *one) {
    one->streams = false;
    return put(one, &answers.stream_end) && next_request(one);
}

static bool send_chunk(Connection *one) {
    Chunk *chunk = one->chunks_left > 1 ? &answers.middle : &answers.last;
    stamp_write(chunk->message.bytes + chunk->stamp, now_ns());
    one->chunks_left--;
    return put(one, &chunk->message);
}

/* One chunk, and when the next one is due. One that the other side does not take waits until there is room. */
static void step(Connection *one) {
    unschedule(one);
    bool alive = send_chunk(one);
    if (alive && one->chunks_left <= 0) {
        alive = end_stream(one);
    } else if (alive && one->out.length == 0) {
        schedule(one, one->gap_ms);
    }
    if (!alive) {
        connection_close(one);
    }
}

/* A chunk of each stream that is in the ring now: a stream that is put in meanwhile has its turn next time. */
static void step_all(Connection *ring) {
    Connection turn;
    ring_start(&turn);
    while (!ring_is_empty(ring)) {
        Connection *one = ring->next;
        ring_remove(one);
        ring_add(&turn, one);
    }
    while (!ring_is_empty(&turn)) {
        step(turn.next);
    }
}

static void catch_up(void) {
    uint64_t until_ms = now_ns() / NS_PER_MS;
    while (timed > 0 && now_ms < until_ms) {
        now_ms++;
        step_all(&wheel[now_ms % SLOTS]);
    }
}

static int timeout_ms(void) {
    if (!ring_is_empty(&eager)) {
        return 0;
    }
    return timed > 0 ? 1 : -1;
}

static void turn_wheel(void) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms());
    for (int i = 0; i < count; i++) {
        handle(events[i].data.ptr, events[i].events);
    }
    step_all(&eager);
    catch_up();
}

static void start(char **ports) {
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    answers = answers_make();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    ring_start(&eager);
    for (int slot = 0; slot < SLOTS; slot++) {
        ring_start(&wheel[slot]);
    }
    for (; *ports != NULL; ports++) {
        int fd = listen_on(atoi(*ports));
        if (fd < 0) {
            die(*ports);
        }
        connection_open(fd, true);
    }
    puts("listens");  /* whoever has started it waits for that */
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: %s PORT...\n", arguments[0]);
        return 2;
    }
    start(arguments + 1);
    for (;;) {
        turn_wheel();
    }
}
