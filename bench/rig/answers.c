#define _GNU_SOURCE
#include "answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_PER_TOKEN = 4 };

#define CHUNK_START "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
                    "\"model\":\"bench-model\",\"choices\":["
#define USAGE "\"usage\":{\"prompt_tokens\":256,\"completion_tokens\":42,\"total_tokens\":298}"
#define STAMP_MARK "@@"
#define STAMP_ROOM "0000000000000000"

static const char COMPLETION[] =
    "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench-model\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A tide gate lets water out at ebb and keeps the "
    "sea out at flood. It swings by itself: what is higher decides. So low land behind a dyke is drained twice a day, "
    "and nobody has to turn a wheel.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE "}";
static const char MODELS[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"bench-model\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"bench\","
    "\"max_model_len\":1000000}]}";
static const char METRICS[] =
    "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"bench-model\"} 1.0\n"
    "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"bench-model\"} 0.0\n"
    "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"bench-model\"} 0.1\n";
/* The names of several engines' pages at once: each router looks for its own. */
static const char HEALTH[] =
    "{\"status\":\"ok\",\"model_path\":\"bench-model\",\"served_model_name\":\"bench-model\",\"model_id\":\"bench-model\","
    "\"tokenizer_path\":\"\",\"is_generation\":true,\"max_total_num_tokens\":1000000,\"max_req_input_len\":1000000,"
    "\"version\":\"0.5.0\"}";
static const char UNKNOWN[] = "{\"error\":{\"message\":\"no such path\",\"type\":\"not_found_error\",\"code\":404}}";

static void add_text(Buffer *to, const char *text) {
    buffer_add(to, text, strlen(text));
}

static void add_message(Buffer *to, const char *status, const char *type, const char *body) {
    char head[256];
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", status, type, strlen(body));
    add_text(to, head);
    add_text(to, body);
}

static Buffer message(const char *status, const char *type, const char *body) {
    Buffer made = {0};
    add_message(&made, status, type, body);
    return made;
}

static Buffer http_chunk(const char *events) {
    Buffer made = {0};
    char size[32];
    snprintf(size, sizeof size, "%zx\r\n", strlen(events));
    add_text(&made, size);
    add_text(&made, events);
    add_text(&made, "\r\n");
    return made;
}

static Chunk chunk(const char *finish_reason) {
    char event[512];
    snprintf(
        event, sizeof event,
        "data: " CHUNK_START "{\"index\":0,\"delta\":{\"content\":\"" STAMP_MARK STAMP_ROOM "\"},\"finish_reason\":%s}]}\n\n",
        finish_reason
    );
    Buffer made = http_chunk(event);
    char *mark = memmem(made.bytes, made.length, STAMP_MARK, strlen(STAMP_MARK));
    return (Chunk){.message = made, .stamp = (size_t)(mark - made.bytes) + strlen(STAMP_MARK)};
}

static Buffer stream_head(void) {
    Buffer made = {0};
    add_text(
        &made,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        "transfer-encoding: chunked\r\n\r\n"
    );
    return made;
}

static Buffer stream_end(void) {
    Buffer made = http_chunk("data: " CHUNK_START "]," USAGE "}\n\ndata: [DONE]\n\n");
    add_text(&made, "0\r\n\r\n");
    return made;
}

Answers answers_make(void) {
    return (Answers){
        .completion = message("200 OK", "application/json", COMPLETION),
        .stream_head = stream_head(),
        .middle = chunk("null"),
        .last = chunk("\"stop\""),
        .stream_end = stream_end(),
        .models = message("200 OK", "application/json", MODELS),
        .metrics = message("200 OK", "text/plain; version=0.0.4", METRICS),
        .health = message("200 OK", "application/json", HEALTH),
        .unknown = message("404 Not Found", "application/json", UNKNOWN),
    };
}

void answer_render(Buffer *to, size_t prompt_bytes) {
    Buffer body = {0};
    add_text(&body, "{\"request_id\":\"chatcmpl-0123456789abcdef\",\"model\":\"bench-model\",\"stream\":false,");
    add_text(&body, "\"sampling_params\":{\"max_tokens\":16},\"token_ids\":[1");
    for (size_t token = 1; token < prompt_bytes / BYTES_PER_TOKEN; token++) {
        char number[16];
        snprintf(number, sizeof number, ",%zu", 1000 + token * 7919 % 99000);  /* of a usual vocabulary, few twice in a row */
        add_text(&body, number);
    }
    buffer_add(&body, "]}", 3);
    add_message(to, "200 OK", "application/json", body.bytes);
    buffer_free(&body);
}
