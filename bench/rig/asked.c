#define _GNU_SOURCE
#include "asked.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Buffer read_file(const char *path) {
    static char bytes[READ_BYTES];
    Buffer content = {0};
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        die(path);
    }
    for (size_t length = fread(bytes, 1, sizeof bytes, file); length > 0; length = fread(bytes, 1, sizeof bytes, file)) {
        buffer_add(&content, bytes, length);
    }
    fclose(file);
    return content;
}

Buffer make_request(const Asked *asked) {
    Buffer request = {0};
    Buffer body = read_file(asked->body_file);
    char head[512];
    int length = snprintf(
        head, sizeof head,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
        "content-length: %zu\r\n",
        asked->port, body.length
    );
    buffer_add(&request, head, (size_t)length);
    buffer_add(&request, asked->headers.bytes, asked->headers.length);
    buffer_add(&request, "\r\n", 2);
    buffer_add(&request, body.bytes, body.length);
    buffer_free(&body);
    return request;
}

static void add_header(Asked *asked, const char *line) {
    buffer_add(&asked->headers, line, strlen(line));
    buffer_add(&asked->headers, "\r\n", 2);
}

static void take_option(Asked *asked, int option) {
    switch (option) {
    case 'p':
        asked->port = atoi(optarg);
        break;
    case 'b':
        asked->body_file = optarg;
        break;
    case 'c':
        asked->connections = atol(optarg);
        break;
    case 'n':
        asked->requests = atol(optarg);
        break;
    case 's':
        asked->seconds = atof(optarg);
        break;
    case 'm':
        asked->ramp_s = atof(optarg);
        break;
    case 'r':
        asked->rate_per_s = atof(optarg);
        break;
    case 'k':
        asked->chunks = atol(optarg);
        break;
    case 't':
        asked->timeout_s = atof(optarg);
        break;
    case 'h':
        add_header(asked, optarg);
        break;
    default:
        exit(2);  /* getopt has said why */
    }
}

Asked take_options(int count, char **arguments) {
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},
        {"body", required_argument, NULL, 'b'},
        {"connections", required_argument, NULL, 'c'},
        {"requests", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'},
        {"ramp", required_argument, NULL, 'm'},
        {"rate", required_argument, NULL, 'r'},
        {"chunks", required_argument, NULL, 'k'},
        {"timeout", required_argument, NULL, 't'},
        {"header", required_argument, NULL, 'h'},
        {0},
    };
    Asked asked = {.connections = 1, .requests = 1, .seconds = 3600.0, .timeout_s = 60.0};
    int option = getopt_long(count, arguments, "", known, NULL);
    while (option >= 0) {
        take_option(&asked, option);
        option = getopt_long(count, arguments, "", known, NULL);
    }
    if (asked.port == 0 || asked.body_file == NULL) {
        fprintf(stderr, "%s needs --port and --body\n", arguments[0]);
        exit(2);
    }
    return asked;
}
