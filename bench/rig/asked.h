/* What the load generator is asked to do. */
#ifndef ASKED_H
#define ASKED_H

#include "net.h"

typedef struct {
    int port;
    const char *body_file;
    long connections;
    long requests;
    double seconds;     /* after which no request begins */
    double ramp_s;
    double rate_per_s;  /* 0 is a closed loop */
    long chunks;        /* of each answer; 0 where they are not streamed */
    double timeout_s;   /* after which nothing is waited for */
    Buffer headers;     /* with their line ends */
} Asked;

/* Ends the program where it does not understand. */
Asked take_options(int count, char **arguments);

/* Head and body, as they are sent each time. */
Buffer make_request(const Asked *asked);

#endif
