/* Sends the example server what no client should, and looks at what it answers.
 *
 *     ./hostile PORT
 */
#include "xdr.h"
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { MARK = 4, STATUS_AT = 24, REPLY_BYTES_MAX = 65536 };
enum { INVAL = 22, NOSPC = 28, BADXDR = 10036, BADSESSION = 10052, REP_TOO_BIG = 10066 };

static int fd;
static uint8_t request[1 << 16], reply[1 << 17];

/* A COMPOUND of so many operations, without a tag. */
static struct writer compound(uint32_t operations)
{
    static const uint32_t head[] = {1, 0, 2, 100003, 4, 1, 0, 0, 0, 0, 0, 1};
    struct writer w = {request + MARK, request + MARK, request + sizeof request};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        put32(&w, head[i]);
    put32(&w, operations);
    return w;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: the server has gone, or makes no sense\n", what);
    exit(1);
}

/* Sends the first `bytes` bytes; what follows the status in the reply, in which `status` is expected. */
static struct reader expect(const char *what, size_t bytes, uint32_t status)
{
    struct writer mark = {request, request, request + MARK};
    put32(&mark, 1u << 31 | (uint32_t)bytes);
    if (send(fd, request, MARK + bytes, MSG_NOSIGNAL) != (ssize_t)(MARK + bytes) || recv(fd, reply, MARK, MSG_WAITALL) != MARK)
        fail(what);
    struct reader r = {reply, reply + MARK, 0};
    uint32_t length = get32(&r) & ~(1u << 31);
    if (length > sizeof reply || recv(fd, reply, length, MSG_WAITALL) != (ssize_t)length)
        fail(what);
    r = (struct reader){reply + STATUS_AT, reply + length, 0};
    uint32_t answered = get32(&r);
    if (r.bad || answered != status || length > REPLY_BYTES_MAX) {
        fprintf(stderr, "%s: status %u in %u bytes, expected %u\n", what, answered, length, status);
        exit(1);
    }
    return r;
}

static size_t exchange_id(void)
{
    struct writer w = compound(1);
    put32(&w, 42);
    put64(&w, 1);                /* verifier */
    put_opaque(&w, "hostile", 7);
    for (int i = 0; i < 3; i++)  /* flags, state protection, implementation */
        put32(&w, 0);
    return (size_t)(w.at - w.begin);
}

static size_t create_session(uint64_t client, uint32_t slots, uint32_t flavor)
{
    struct writer w = compound(1);
    put32(&w, 43);
    put64(&w, client);
    put32(&w, 1); /* sequence id */
    put32(&w, 2); /* CREATE_SESSION4_FLAG_CONN_BACK_CHAN */
    for (int channel = 0; channel < 2; channel++) {
        uint32_t attributes[] = {0, 4096, 4096, 4096, 8, channel == 0 ? 8 : slots, 0};
        for (int i = 0; i < 7; i++)
            put32(&w, attributes[i]);
    }
    put32(&w, 0x40000000); /* program */
    put32(&w, 1);
    put32(&w, flavor);
    put32(&w, 0);
    put_opaque(&w, "host", 4);
    for (int i = 0; i < 3; i++) /* uid, gid, gids */
        put32(&w, 0);
    return (size_t)(w.at - w.begin);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "0"));
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(argc > 1 ? argv[1] : "PORT");
        return 1;
    }
    expect("half an EXCHANGE_ID", exchange_id() - 8, BADXDR);
    struct reader r = expect("EXCHANGE_ID", exchange_id(), 0);
    get_bytes(&r, 4 * 4); /* tag, results, operation, its status */
    uint64_t client = get64(&r);

    struct writer w = compound(1);
    uint32_t id[4] = {(uint32_t)client};
    put32(&w, 53);
    put_bytes(&w, id, sizeof id);
    for (int i = 0; i < 4; i++)
        put32(&w, 0);
    expect("SEQUENCE before there is a session", (size_t)(w.at - w.begin), BADSESSION);

    expect("a backchannel without slots", create_session(client, 0, 1), INVAL);
    expect("a backchannel with RPCSEC_GSS", create_session(client, 8, 6), INVAL);
    expect("half a CREATE_SESSION", create_session(client, 8, 1) - 8, BADXDR);
    expect("CREATE_SESSION", create_session(client, 8, 1), 0);
    expect("a second session", create_session(client, 8, 1), NOSPC);

    w = compound(8188);
    for (int i = 0; i < 8188; i++) /* PUTROOTFH: of these results, one more than fits */
        put32(&w, 24);
    expect("more results than fit", (size_t)(w.at - w.begin), REP_TOO_BIG);
    return 0;
}
