/* Clients of examples/upgrade.c that see nothing of its upgrades: the recalls that one process has sent are answered to those
 * that follow, a part of each answer to each of them, and calls that the first one has taken are answered by the last. A
 * successor that dies on its way changes nothing.
 *
 *     ./upgrading SERVER SOCKET ROUNDS              SERVER is the program
 *
 * Ends with 0 if every process has, and if each recall came once.
 */
#include "xdr.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CLIENTS = 3, MARK = 4, SESSION_BYTES = 16 };

static struct { int fd; uint8_t answer[256]; size_t bytes, sent; } clients[CLIENTS];
static const char *program, *path;
static pid_t server;
static FILE *said;

static void fail(const char *what)
{
    fprintf(stderr, "upgrading: %s\n", what);
    if (server > 0)
        kill(server, 9);
    exit(1);
}

static void expect(int holds, const char *what)
{
    if (!holds)
        fail(what);
}

/* Starts a server; what it says can be read from `said`. */
static void start(const char *port)
{
    int out[2];
    expect(pipe2(out, O_CLOEXEC) == 0, "pipe");
    server = fork();
    expect(server >= 0, "fork");
    if (server == 0) {
        dup2(out[1], 1);
        execl(program, program, path, port, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    said = fdopen(out[0], "r");
}

/* Waits for a server to end, and gives the number behind `what` in what it has said. */
static int ended(pid_t process, FILE *from, const char *what)
{
    char line[256];
    int status, number = -1;
    while (fgets(line, sizeof line, from) != NULL) {
        printf("%d: %s", (int)process, line);
        if (strncmp(line, what, strlen(what)) == 0)
            number = atoi(line + strlen(what));
    }
    fclose(from);
    expect(waitpid(process, &status, 0) == process && WIFEXITED(status) && WEXITSTATUS(status) == 0, "a server failed");
    return number;
}

static void receive(int fd, void *bytes, size_t count)
{
    expect(recv(fd, bytes, count, MSG_WAITALL) == (ssize_t)count, "the server has gone");
}

static size_t receive_record(int fd, uint8_t *record, size_t room)
{
    uint8_t mark[MARK];
    receive(fd, mark, MARK);
    struct reader r = {mark, mark + MARK, 0};
    size_t bytes = get32(&r) & 0x7fffffff;
    expect(bytes <= room, "a record is too long");
    receive(fd, record, bytes);
    return bytes;
}

static void send_some(int client, size_t until)
{
    const uint8_t *from = clients[client].answer + clients[client].sent;
    size_t bytes = until - clients[client].sent;
    expect(send(clients[client].fd, from, bytes, MSG_NOSIGNAL) == (ssize_t)bytes, "send");
    clients[client].sent = until;
}

/* Takes the recall (RFC 8881 section 20.2), and makes the answer to it. */
static void take_recall(int client)
{
    uint8_t record[1024], *answer = clients[client].answer;
    struct reader r = {record, record + receive_record(clients[client].fd, record, sizeof record), 0};
    struct writer w = {answer, answer, answer + sizeof clients[client].answer};
    uint32_t count, xid = get32(&r);
    for (int i = 0; i < 5; i++) /* call, version, program, version, procedure */
        get32(&r);
    for (int i = 0; i < 2; i++) {
        get32(&r);
        get_opaque(&r, &count);
    }
    get_opaque(&r, &count); /* tag */
    get64(&r);              /* minor version, callback_ident */
    expect(get32(&r) == 2 && get32(&r) == 11, "two operations, CB_SEQUENCE first");
    const uint8_t *session = get_bytes(&r, SESSION_BYTES);
    uint32_t sequence = get32(&r), slot = get32(&r), highest = get32(&r);
    expect(get64(&r) == 0 && get32(&r) == 4 && !r.bad && sequence == 1, "then CB_RECALL, on a slot of its own");
    put32(&w, 0);
    put32(&w, xid);
    for (int i = 0; i < 5; i++) /* reply, accepted, no verifier, success */
        put32(&w, i == 0);
    put64(&w, 0); /* status, tag */
    put32(&w, 2);
    put64(&w, (uint64_t)11 << 32);
    put_bytes(&w, session, SESSION_BYTES);
    for (int i = 0; i < 4; i++)
        put32(&w, i == 0 ? sequence : i == 1 ? slot : highest);
    put64(&w, (uint64_t)4 << 32);
    clients[client].bytes = (size_t)(w.at - w.begin);
    patch32(&w, w.begin, 1u << 31 | (uint32_t)(clients[client].bytes - MARK));
}

static void call_server(int client, uint32_t xid)
{
    const uint32_t call[] = {1u << 31 | 40, xid, 0, 2, 100003, 4, 0, 0, 0, 0, 0};
    uint8_t bytes[44];
    struct writer w = {bytes, bytes, bytes + sizeof bytes};
    for (size_t i = 0; i < 11; i++)
        put32(&w, call[i]);
    expect(send(clients[client].fd, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes, "call");
}

/* A successor that takes all and dies: what has come is closed, and the other one goes on. */
static void die_on_the_way(void)
{
    static const uint32_t hello[] = {0x70756272, 1, 0, 8, 1, 0}; /* "rbup", hello, no files, version 1 */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char byte;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, path);
    expect(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect to the server");
    expect(send(fd, hello, sizeof hello, 0) == sizeof hello && recv(fd, &byte, 1, 0) == 1, "the server stands still");
    close(fd);
}

int main(int argc, char **argv)
{
    char line[256];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (argc != 4)
        return 2;
    program = argv[1], path = argv[2];
    int rounds = atoi(argv[3]);
    start("0");
    expect(fgets(line, sizeof line, said) != NULL && strrchr(line, ':') != NULL, "it says where it listens");
    address.sin_port = htons((uint16_t)atoi(strrchr(line, ':') + 1));
    for (int client = 0; client < CLIENTS; client++) {
        clients[client].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        expect(connect(clients[client].fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
        call_server(client, 77);
        take_recall(client);
    }
    /* Each process is given a part of each answer. */
    for (int round = 1; round <= rounds; round++) {
        for (int client = 0; client < CLIENTS; client++)
            send_some(client, clients[client].bytes * (size_t)round / (size_t)(rounds + 1));
        die_on_the_way();
        pid_t former = server;
        FILE *from = said;
        start(NULL);
        expect(ended(former, from, "handed over: connections ") == CLIENTS, "all connections go over");
    }
    for (int client = 0; client < CLIENTS; client++) {
        uint8_t reply[64];
        struct pollfd more = {clients[client].fd, POLLIN, 0};
        send_some(client, clients[client].bytes);
        size_t bytes = receive_record(clients[client].fd, reply, sizeof reply);
        struct reader r = {reply, reply + bytes, 0};
        expect(bytes == 24 && get32(&r) == 77 && get32(&r) == 1, "the call is answered when the recall is over");
        expect(poll(&more, 1, 100) == 0, "and nothing comes twice");
        close(clients[client].fd);
    }
    expect(ended(server, said, "recalled ") == CLIENTS, "every recall has ended once");
    return 0;
}
