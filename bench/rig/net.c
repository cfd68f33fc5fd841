#define _GNU_SOURCE
#include "net.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

void die(const char *what) {
    perror(what);
    exit(1);
}

void *grown(void *memory, size_t bytes) {
    void *larger = realloc(memory, bytes);
    if (larger == NULL) {
        die("memory");
    }
    return larger;
}

void buffer_add(Buffer *buffer, const void *bytes, size_t length) {
    if (buffer->length + length > buffer->room) {
        buffer->room = (buffer->length + length) * 2;
        buffer->bytes = grown(buffer->bytes, buffer->room);
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

void buffer_drop(Buffer *buffer, size_t length) {
    buffer->length -= length;
    memmove(buffer->bytes, buffer->bytes + length, buffer->length);
}

void buffer_free(Buffer *buffer) {
    free(buffer->bytes);
    *buffer = (Buffer){0};
}

void stamp_write(char *digits, uint64_t ns) {
    for (int place = STAMP_DIGITS - 1; place >= 0; place--) {
        digits[place] = "0123456789abcdef"[ns & 15];
        ns >>= 4;
    }
}

uint64_t stamp_read(const char *digits) {
    uint64_t ns = 0;
    for (int place = 0; place < STAMP_DIGITS; place++) {
        char digit = digits[place];
        ns = ns * 16 + (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return ns;
}

void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

/* Small writes go out at once: a chunk that waits for an acknowledgement is 40 ms late. */
static void send_at_once(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int listen_on(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0) {
        return -1;
    }
    return fd;
}

int accept_from(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        send_at_once(fd);
    }
    return fd;
}

int connect_to(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    send_at_once(fd);
    /* In progress, or refused: either is told by epoll. */
    connect(fd, (struct sockaddr *)&address, sizeof address);
    return fd;
}

void watch(int epoll, int fd, void *of) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = of};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        die("epoll");
    }
}

void watch_again(int epoll, int fd, void *of, bool writes) {
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.ptr = of};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) < 0) {
        die("epoll");
    }
}
