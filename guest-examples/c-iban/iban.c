// Checks an IBAN (ISO 13616): GET /iban?number=GB82+WEST+1234+5698+7654+32
//
// The answer is JSON: the number as it is written down, its country, and whether its check digits
// are right. What is not even of the form of an IBAN is a 422 that says why.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_function.h"

typedef exports_dunlin_event_http_request_t request_t;
typedef exports_dunlin_event_http_response_t response_t;

// How many characters an IBAN has: Norway's has 15, the standard allows 34.
enum { SHORTEST = 15, LONGEST = 34 };

static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_letter(char c) { return c >= 'A' && c <= 'Z'; }

static int hexadecimal(char c) {
    if (is_digit(c)) return c - '0';
    c &= ~0x20;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The value of a parameter of the query, still encoded; NULL if it has none of this name.
static const char *parameter(const char *target, size_t length, const char *name, size_t *found) {
    const char *end = target + length;
    const char *at = memchr(target, '?', length);
    size_t name_length = strlen(name);
    while (at != NULL && ++at < end) {
        const char *next = memchr(at, '&', end - at);
        const char *stop = next != NULL ? next : end;
        if ((size_t)(stop - at) > name_length && memcmp(at, name, name_length) == 0 &&
            at[name_length] == '=') {
            *found = stop - at - name_length - 1;
            return at + name_length + 1;
        }
        at = next;
    }
    return NULL;
}

// Decodes an IBAN into capitals, without its spaces; answers what is wrong with it, or NULL.
static const char *decode(const char *text, size_t length, char iban[LONGEST + 1]) {
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        int c = text[i];
        if (c == '%') {
            int high = i + 2 < length ? hexadecimal(text[i + 1]) : -1;
            int low = high >= 0 ? hexadecimal(text[i + 2]) : -1;
            if (low < 0) return "a % is not followed by two hexadecimal digits";
            c = high * 16 + low;
            i += 2;
        }
        if (c == '+' || c == ' ') continue;
        if (c >= 'a' && c <= 'z') c -= 0x20;
        if (!is_digit(c) && !is_letter(c)) return "an IBAN has letters and digits only";
        if (count == LONGEST) return "an IBAN has 34 characters at most";
        iban[count++] = (char)c;
    }
    iban[count] = 0;
    if (count < SHORTEST) return "an IBAN has 15 characters at least";
    if (!is_letter(iban[0]) || !is_letter(iban[1])) return "an IBAN begins with a country's letters";
    if (!is_digit(iban[2]) || !is_digit(iban[3])) return "the country is followed by two digits";
    return NULL;
}

// The remainder by 97 of the number that an IBAN stands for, read from its fifth character on, with
// letters as 10 to 35: 1 if its check digits are right.
static int is_valid(const char *iban) {
    unsigned remainder = 0;
    size_t length = strlen(iban);
    for (size_t i = 0; i < length; i++) {
        char c = iban[(i + 4) % length];
        unsigned value = is_digit(c) ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
        remainder = (remainder * (value < 10 ? 10 : 100) + value) % 97;
    }
    return remainder == 1;
}

static void answer(response_t *response, int status, char *body) {
    // What is returned was allocated with malloc, and is freed by the bindings.
    static const char NAME[] = "content-type";
    static const char VALUE[] = "application/json";
    exports_dunlin_event_http_header_t *header = malloc(sizeof *header);
    http_function_string_dup_n(&header->f0, NAME, sizeof NAME - 1);
    header->f1.ptr = malloc(sizeof VALUE - 1);
    header->f1.len = sizeof VALUE - 1;
    memcpy(header->f1.ptr, VALUE, sizeof VALUE - 1);
    response->status = status;
    response->headers.ptr = header;
    response->headers.len = 1;
    response->body.ptr = (uint8_t *)body;
    response->body.len = strlen(body);
}

void exports_dunlin_event_http_handle(request_t *request, response_t *response) {
    char iban[LONGEST + 1];
    char *body = malloc(256);
    size_t length = 0;
    const char *target = (const char *)request->path_with_query.ptr;
    const char *number = parameter(target, request->path_with_query.len, "number", &length);
    const char *wrong = number == NULL ? "the parameter `number` is missing"
                                       : decode(number, length, iban);
    if (wrong != NULL) {
        snprintf(body, 256, "{\"error\":\"%s\"}", wrong);
        // One line of JSON with `level` and `message` keeps both in the host's log.
        printf("{\"level\":\"warn\",\"message\":\"refused\",\"why\":\"%s\"}\n", wrong);
        answer(response, number == NULL ? 400 : 422, body);
    } else {
        snprintf(body, 256, "{\"iban\":\"%s\",\"country\":\"%.2s\",\"valid\":%s}", iban, iban,
                 is_valid(iban) ? "true" : "false");
        answer(response, 200, body);
    }
    exports_dunlin_event_http_request_free(request);
}
