/* What the engine and the load generator have in common below HTTP: a clock, bytes, sockets. */
#ifndef NET_H
#define NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    READ_BYTES = 256 * 1024,  /* of one read: a large prompt in few calls */
    EVENTS = 512,             /* of one epoll_wait */
    STAMP_DIGITS = 16,        /* of a time in hexadecimal */
};

/* Bytes that grow. Zeroed is empty. */
typedef struct {
    char *bytes;
    size_t length;
    size_t room;
} Buffer;

/* Nanoseconds of the clock that all processes of a machine share. */
uint64_t now_ns(void);

/* Ends the program; says what failed, and why by errno. */
_Noreturn void die(const char *what);

/* `realloc`, which ends the program where memory is short. */
void *grown(void *memory, size_t bytes);

void buffer_add(Buffer *buffer, const void *bytes, size_t length);
void buffer_drop(Buffer *buffer, size_t length);
void buffer_free(Buffer *buffer);

/* The time as hexadecimal digits, of fixed width, and back. */
void stamp_write(char *digits, uint64_t ns);
uint64_t stamp_read(const char *digits);

/* As many open files as the system lets us have: thousands of streams take a socket each. */
void raise_file_limit(void);

/* Sockets on loopback that never block. -1 with errno where there is none. */
int listen_on(int port);
int accept_from(int listener);
int connect_to(int port);

/* Tells epoll that `of` wants to hear of this socket; of room to write, too, if `writes`. */
void watch(int epoll, int fd, void *of);
void watch_again(int epoll, int fd, void *of, bool writes);

#endif
