/* Posts recorded requests over kept connections, each once, and notes what each took and what came back: the client of
 * bench_server's "poll" and of its rival. It does next to nothing per request, so that it is the server that is measured.
 *
 *   post_all PORT CONNECTIONS REQUESTS ANSWERS
 *
 * REQUESTS: for each request a 32-bit length (little-endian) and its octets, HTTP head included.
 * ANSWERS (written): 64-bit nanoseconds of the whole run; for each request, in REQUESTS' order, 64-bit nanoseconds, a
 * 32-bit length and the answer, HTTP head included. Knows HTTP as far as Content-Length.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_CONNECTIONS 256
#define MOST_ANSWER (1 << 16)
#define TIMEOUT_MS 60000

struct request { const char *octets; uint32_t length; uint64_t took; char *answer; uint32_t answered; };
struct connection { struct request *request; uint64_t began; char buffer[MOST_ANSWER + 1]; uint32_t filled; };

static struct request *requests;
static uint32_t count, next_one, done;
static struct connection connections[MOST_CONNECTIONS];
static struct pollfd polled[MOST_CONNECTIONS];

static void fail(const char *what) {
    fprintf(stderr, "post_all: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + time.tv_nsec;
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t length, room = 0;
    if (!file) fail(path);
    while (fread(&length, sizeof length, 1, file) == 1) {
        if (count == room) requests = realloc(requests, (room = room ? 2 * room : 1024) * sizeof *requests);
        char *octets = malloc(length);
        if (!requests || !octets || fread(octets, 1, length, file) != length) fail("reading requests");
        requests[count++] = (struct request){octets, length, 0, NULL, 0};
    }
    fclose(file);
}

static int open_connection(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int socket_, one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((socket_ = socket(AF_INET, SOCK_STREAM, 0)) < 0) fail("socket");
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(socket_, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
    return socket_;
}

/* The connection's next request; a request is smaller than a socket's buffer, so it is written at once. */
static void send_next(uint32_t index) {
    struct connection *connection = &connections[index];
    connection->request = NULL;
    if (next_one == count) return;
    connection->request = &requests[next_one++];
    connection->filled = 0;
    connection->began = now();
    if (write(polled[index].fd, connection->request->octets, connection->request->length)
        != (ssize_t)connection->request->length)
        fail("write");
}

/* Octets of a complete answer at the buffer's begin; 0: not complete yet. */
static uint32_t answer_length(struct connection *connection) {
    connection->buffer[connection->filled] = 0;
    char *end = strstr(connection->buffer, "\r\n\r\n");
    if (!end) return 0;
    for (char *line = connection->buffer; line < end; line = strstr(line, "\r\n") + 2)
        if (!strncasecmp(line, "content-length:", 15)) {
            uint32_t whole = end + 4 - connection->buffer + strtoul(line + 15, NULL, 10);
            return connection->filled >= whole ? whole : 0;
        }
    errno = EPROTO;
    fail("an answer without Content-Length");
    return 0;
}

static void receive(uint32_t index) {
    struct connection *connection = &connections[index];
    struct request *request = connection->request;
    ssize_t got = read(polled[index].fd, connection->buffer + connection->filled, MOST_ANSWER - connection->filled);
    if (got <= 0 || !request) fail("the server closed a connection, or its answer is too long");
    connection->filled += got;
    uint32_t length = answer_length(connection);
    if (!length) return;
    request->took = now() - connection->began;
    request->answered = length;
    request->answer = malloc(length);
    memcpy(request->answer, connection->buffer, length);
    done++;
    send_next(index);
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "post_all PORT CONNECTIONS REQUESTS ANSWERS\n"); return 2; }
    uint32_t open = atoi(argv[2]);
    if (open < 1 || open > MOST_CONNECTIONS) { fprintf(stderr, "post_all: 1 to %d connections\n", MOST_CONNECTIONS); return 2; }
    load(argv[3]);
    for (uint32_t i = 0; i < open; i++) polled[i] = (struct pollfd){open_connection(atoi(argv[1])), POLLIN, 0};
    uint64_t began = now();
    for (uint32_t i = 0; i < open; i++) send_next(i);
    while (done < count) {
        int ready = poll(polled, open, TIMEOUT_MS);
        if (ready <= 0) fail("no answer");
        for (uint32_t i = 0; i < open; i++)
            if (polled[i].revents) receive(i);
    }
    uint64_t took = now() - began;
    FILE *file = fopen(argv[4], "wb");
    if (!file) fail(argv[4]);
    fwrite(&took, sizeof took, 1, file);
    for (uint32_t i = 0; i < count; i++) {
        fwrite(&requests[i].took, sizeof requests[i].took, 1, file);
        fwrite(&requests[i].answered, sizeof requests[i].answered, 1, file);
        fwrite(requests[i].answer, 1, requests[i].answered, file);
    }
    return fclose(file) ? 1 : 0;
}
