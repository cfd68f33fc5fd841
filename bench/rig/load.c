/* A load generator: one JSON line of what became of the requests.
 *
 *     load --port P --body FILE --connections C --requests N [--seconds S] [--ramp S] [--rate R] [--chunks K]
 *          [--header 'NAME: VALUE']... [--timeout S]
 *
 * Closed loop: each of C connections asks again as soon as it is answered; the first requests are spread over the ramp. Open
 * loop, with a rate: a request is due each 1/R seconds, whatever became of those before it, and goes out as soon as one of C
 * connections is free. Times count from when it was due, so a relay that is late for one is late for all that had to wait.
 *
 * No request begins after S seconds; what is under way then is waited for until the timeout, and of an open loop what was due
 * by then and had no connection is an error. With K, answers are streams of so many chunks, and one that has another number,
 * or does not say that it is done, is an error.
 */
#define _GNU_SOURCE
#include "asked.h"
#include "http.h"
#include "samples.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS_MAX = 100, OK = 200 };

static const double NS_PER_S = 1e9;

typedef struct Connection Connection;

struct Connection {
    int fd;               /* -1 while there is none */
    bool busy;
    bool has_connected;   /* it has taken something */
    bool waits_for_room;  /* to write */
    size_t sent;
    uint64_t due_ns;
    uint64_t first_ns;    /* when the first chunk came; 0 before */
    Reader reader;
    Buffer line;          /* of the stream, as far as it has come */
    long chunks;
    bool done;            /* the stream has said so */
    Connection *next_free;
};

/* Why requests failed. */
static struct {
    long connect;     /* nothing listens */
    long broken;      /* closed before the answer was whole */
    long status;      /* not 200 */
    long stream;      /* another number of chunks, or no end */
    long unfinished;  /* at the timeout */
    long not_begun;   /* due, and no connection was free until none may begin */
} errors;

static struct {
    long begun;
    long ended;
    long ok;
    long connects;
    long chunks;
} counts;

static Asked asked;
static Samples latency;
static Samples ttft;
static Samples transit;
static Buffer request;
static Connection *all;
static Connection *free_ones;
static uint64_t began_ns;
static int epoll;

static void end_request(Connection *one);

static double elapsed_s(void) {
    return (double)(now_ns() - began_ns) / NS_PER_S;
}

static bool may_begin(void) {
    return counts.begun < asked.requests && elapsed_s() < asked.seconds;
}

static void disconnect(Connection *one) {
    if (one->fd >= 0) {
        close(one->fd);
        one->fd = -1;
    }
}

static void fail(Connection *one, long *why) {
    (*why)++;
    disconnect(one);
    end_request(one);
}

/* Sends what the socket takes; what is left goes out when there is room. */
static void send_request(Connection *one) {
    ssize_t taken = send(one->fd, request.bytes + one->sent, request.length - one->sent, MSG_NOSIGNAL);
    if (taken > 0) {
        one->has_connected = true;
        one->sent += (size_t)taken;
    } else if (errno != EAGAIN && errno != ENOTCONN) {
        return;  /* reading says that it is broken, after an answer that may have come first */
    }
    bool waits = one->sent < request.length;
    if (waits != one->waits_for_room) {
        one->waits_for_room = waits;
        watch_again(epoll, one->fd, one, waits);
    }
}

static void connect_one(Connection *one) {
    one->fd = connect_to(asked.port);
    if (one->fd < 0) {
        die("socket");
    }
    counts.connects++;
    one->has_connected = false;
    one->waits_for_room = false;
    watch(epoll, one->fd, one);
}

static void begin(Connection *one, uint64_t due_ns) {
    counts.begun++;
    one->busy = true;
    one->sent = 0;
    one->due_ns = due_ns;
    one->first_ns = 0;
    one->line.length = 0;
    one->chunks = 0;
    one->done = false;
    reader_start(&one->reader, false);
    if (one->fd < 0) {
        connect_one(one);
    }
    send_request(one);
}

/* Whoever is free asks again by itself in a closed loop, and waits for its turn in an open one. */
static void set_free(Connection *one) {
    if (asked.rate_per_s > 0.0) {
        one->next_free = free_ones;
        free_ones = one;
    } else if (may_begin()) {
        begin(one, now_ns());
    }
}

static void end_request(Connection *one) {
    counts.ended++;
    one->busy = false;
    set_free(one);
}

static int status_of(const Connection *one) {
    return atoi(one->reader.head.bytes + strlen("HTTP/1.1 "));
}

/* The answer is whole. */
static void finish(Connection *one) {
    uint64_t at_ns = now_ns();
    if (status_of(one) != OK) {
        fail(one, &errors.status);
        return;
    }
    if (asked.chunks > 0 && (one->chunks != asked.chunks || !one->done)) {
        fail(one, &errors.stream);
        return;
    }
    counts.ok++;
    samples_add(&latency, at_ns - one->due_ns);
    if (one->first_ns > 0) {
        samples_add(&ttft, one->first_ns - one->due_ns);
    }
    if (one->reader.closes) {
        disconnect(one);
    }
    end_request(one);
}

/* A chunk says when the engine has sent it. */
static void take_chunk(Connection *one, const char *stamp) {
    uint64_t at_ns = now_ns();
    if (one->first_ns == 0) {
        one->first_ns = at_ns;
    }
    one->chunks++;
    counts.chunks++;
    samples_add(&transit, at_ns - stamp_read(stamp));
}

static void take_line(Connection *one) {
    const Buffer *line = &one->line;
    if (line->length < 5 || memcmp(line->bytes, "data:", 5) != 0) {
        return;
    }
    const char *mark = memmem(line->bytes, line->length, "@@", 2);
    if (mark != NULL && mark + 2 + STAMP_DIGITS <= line->bytes + line->length) {
        take_chunk(one, mark + 2);
    } else if (memmem(line->bytes, line->length, "[DONE]", 6) != NULL) {
        one->done = true;
    }
}

static void take_body(void *of, const char *bytes, size_t length) {
    Connection *one = of;
    while (asked.chunks > 0 && length > 0) {
        const char *end = memchr(bytes, '\n', length);
        size_t part = end == NULL ? length : (size_t)(end - bytes);
        buffer_add(&one->line, bytes, part);
        if (end == NULL) {
            return;
        }
        take_line(one);
        one->line.length = 0;
        bytes += part + 1;
        length -= part + 1;
    }
}

static void take(Connection *one, const char *bytes, size_t length) {
    reader_feed(&one->reader, bytes, length, take_body, one);
    if (one->reader.state == COMPLETE) {
        finish(one);
    }
}

/* The other side has closed: the end of an answer without a length, else a failure, unless nothing was asked. */
static void take_close(Connection *one) {
    if (!one->busy) {
        disconnect(one);
    } else if (one->reader.state == UNTIL_CLOSE) {
        finish(one);
    } else {
        fail(one, one->has_connected ? &errors.broken : &errors.connect);
    }
}

static void read_some(Connection *one) {
    static char bytes[READ_BYTES];
    ssize_t length = recv(one->fd, bytes, sizeof bytes, 0);
    if (length > 0 && one->busy) {
        take(one, bytes, (size_t)length);
    } else if (length >= 0 || errno != EAGAIN) {
        take_close(one);
    }
}

static void handle(Connection *one, uint32_t events) {
    if ((events & EPOLLOUT) != 0) {
        send_request(one);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        read_some(one);
    }
}

/* When the next request is due, in an open loop; in a closed one, when the next connection begins. */
static uint64_t due_ns(long number) {
    double s = asked.rate_per_s > 0.0 ? (double)number / asked.rate_per_s
                                      : asked.ramp_s * (double)number / (double)asked.connections;
    return began_ns + (uint64_t)(s * NS_PER_S);
}

static void begin_due(long *number) {
    while (free_ones != NULL && may_begin() && now_ns() >= due_ns(*number)) {
        Connection *one = free_ones;
        free_ones = one->next_free;
        begin(one, due_ns(*number));
        (*number)++;
    }
}

/* Until the next request is due. */
static struct timespec wait_for(long number) {
    uint64_t most_ns = WAIT_MS_MAX * 1000000ull;
    uint64_t at_ns = now_ns();
    uint64_t wait_ns = most_ns;
    if (free_ones != NULL && may_begin()) {
        uint64_t next_ns = due_ns(number);
        wait_ns = next_ns > at_ns ? next_ns - at_ns : 0;
    }
    return (struct timespec){.tv_nsec = (long)(wait_ns < most_ns ? wait_ns : most_ns)};
}

/* Of an open loop, how many were due before it ended, or none might begin any more, from this one on. */
static long due_from(long number) {
    double seconds = elapsed_s();
    uint64_t end_ns = began_ns + (uint64_t)((seconds < asked.seconds ? seconds : asked.seconds) * NS_PER_S);
    long due = 0;
    while (asked.rate_per_s > 0.0 && number + due < asked.requests && due_ns(number + due) < end_ns) {
        due++;
    }
    return due;
}

static bool is_over(void) {
    return elapsed_s() > asked.timeout_s || (counts.ended == counts.begun && !may_begin());
}

static void run(void) {
    struct epoll_event events[EVENTS];
    long number = 0;
    bool was_full = false;  /* when one might begin last; where it was not, what came due since had a connection, and no time */
    while (!is_over()) {
        begin_due(&number);
        if (may_begin()) {
            was_full = free_ones == NULL;
        }
        struct timespec wait = wait_for(number);
        int count = epoll_pwait2(epoll, events, EVENTS, &wait, NULL);
        for (int i = 0; i < count; i++) {
            handle(events[i].data.ptr, events[i].events);
        }
    }
    errors.unfinished = counts.begun - counts.ended;
    errors.not_begun = was_full ? due_from(number) : 0;
}

static void print_results(void) {
    double seconds = elapsed_s();
    printf("{\"ok\": %ld, \"seconds\": %.3f, \"per_s\": %.1f, ", counts.ok, seconds, (double)counts.ok / seconds);
    printf("\"chunks\": %ld, \"connects\": %ld, ", counts.chunks, counts.connects);
    printf("\"errors\": {\"connect\": %ld, \"broken\": %ld, ", errors.connect, errors.broken);
    printf("\"status\": %ld, \"stream\": %ld, ", errors.status, errors.stream);
    printf("\"unfinished\": %ld, \"not_begun\": %ld}, ", errors.unfinished, errors.not_begun);
    samples_print("latency_us", &latency);
    printf(", ");
    samples_print("ttft_us", &ttft);
    printf(", ");
    samples_print("transit_us", &transit);
    printf("}\n");
}

static void make_connections(void) {
    all = grown(NULL, (size_t)asked.connections * sizeof *all);
    for (long i = asked.connections - 1; i >= 0; i--) {
        all[i] = (Connection){.fd = -1, .next_free = free_ones};
        free_ones = &all[i];
    }
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    asked = take_options(count, arguments);
    request = make_request(&asked);
    make_connections();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    began_ns = now_ns();
    run();
    print_results();
    return 0;
}
