/* How long a loop of events takes between two looks for more, of which everybody waits who comes meanwhile.
 *
 * Loaded before a program that waits by epoll (LD_PRELOAD). Each turn of its first thread, from when epoll has returned
 * to when it is called again, is counted in the file that TURNS_FILE names, which is mapped: PLACES numbers of 64 bits,
 * of turns by CPU time in steps of STEP_US (the last one has what is longer), and one more, the steps that the longest
 * took. CPU, and not what passed: a neighbour that took the core meanwhile holds no loop.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PLACES = 20000, STEP_US = 10 };

static uint64_t *counts;
static int64_t since_ns;
static pid_t first_thread;
static int (*wait_next)(int, struct epoll_event *, int, int);
static int (*pwait_next)(int, struct epoll_event *, int, int, const sigset_t *);

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

__attribute__((constructor)) static void open_file(void) {
    wait_next = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    pwait_next = (int (*)(int, struct epoll_event *, int, int, const sigset_t *))dlsym(RTLD_NEXT, "epoll_pwait");
    const char *name = getenv("TURNS_FILE");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, (PLACES + 1) * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return;
    first_thread = getpid();
    counts = mapped;
}

static void ended(void) {
    if (!counts || !since_ns || gettid() != first_thread) return;
    uint64_t place = (uint64_t)(now_ns() - since_ns) / (1000 * STEP_US);
    if (counts[PLACES] < place + 1) counts[PLACES] = place + 1;  /* first: who reads meanwhile finds how long it was */
    counts[place < PLACES ? place : PLACES - 1]++;
}

static void begun(void) {
    if (counts && gettid() == first_thread) since_ns = now_ns();
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
    ended();
    int found = wait_next(epoll, events, most, timeout);
    begun();
    return found;
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
    ended();
    int found = pwait_next(epoll, events, most, timeout, mask);
    begun();
    return found;
}
