/* A server that a new version of itself takes over from, with its connections, while recalls are out and calls wait. What
 * it should know of NFS is left out: whoever connects is a client with a session, and holds a delegation that is recalled at
 * once; a call waits until that is over, like an OPEN that is in conflict with it.
 *
 *     cc upgrade.c -o upgrade $(pkg-config --cflags --libs ringback)
 *     ./upgrade SOCKET 0                            it says where it listens, and waits for its successor at SOCKET
 *     ./upgrade SOCKET                              takes over, and waits for the next one
 */
#include "listen.h"
#include "xdr.h"
#include <errno.h>
#include <poll.h>
#include <ringback.h>
#include <sys/un.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, PATIENCE_MS = 5000 };

/* Plain numbers: all of it goes into the checkpoint as it is. */
static struct server {
    uint32_t clients, recalled;
    struct {
        rb_connection connection;
        uint32_t call_waits, xid;
        uint64_t serial; /* of the call */
    } client[CLIENTS_MAX];
} server;

static rb_runtime *runtime;
static rb_queue *queue;
static rb_call *calls[CLIENTS_MAX];

static void check(int answer, const char *what)
{
    if (answer < 0) {
        fprintf(stderr, "%s: %s\n", what, rb_last_error());
        exit(1);
    }
}

static int encode(void *user, const rb_run *run, rb_args *args)
{
    rb_recall_args recall = {.stateid = {.seqid = 1}, .fh = {(const uint8_t *)"file", 4}};
    (void)user;
    memcpy(recall.stateid.other, &run->cookie, sizeof run->cookie);
    return rb_encode_recall(args, &recall);
}

/* --- handing over -------------------------------------------------------------------------------------------------- */

/* What this process knows itself goes along: called in rb_upgrade_to(), while everything stands still. */
static void checkpoint(void *user, rb_own *own)
{
    (void)user;
    check(rb_checkpoint_add(own, (const uint8_t *)&server, sizeof server), "checkpoint");
}

/* Each callback comes back, with the cookie that it had: that means the same in every process. */
static int restored(void *user, const rb_restored *callback, uint64_t *cookie)
{
    (void)user, (void)cookie;
    return callback->cookie < CLIENTS_MAX;
}

/* The successor is at the other end. If it does not take over, nothing has happened. */
static int hand_over(int meeting, int listener)
{
    int files[] = {listener, meeting}, successor = accept(meeting, NULL, NULL);
    rb_upgraded upgraded = {.size = sizeof upgraded};
    if (successor < 0)
        return 0;
    int answer = rb_upgrade_to(runtime, successor, files, 2, PATIENCE_MS, &upgraded);
    close(successor);
    if (answer < 0) {
        fprintf(stderr, "no upgrade: %s\n", rb_last_error());
        return 0;
    }
    printf("handed over: connections %d, in flight %d, undone %d\n", (int)upgraded.connections, (int)upgraded.in_flight,
           (int)upgraded.undone);
    return 1;
}

/* Takes everything over from the process that listens on `path`. */
static void take_over(const struct sockaddr_un *path, rb_options *options, const rb_hooks *hooks, int *files)
{
    rb_upgrade *upgrade;
    rb_checkpoint *known;
    int predecessor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(predecessor, (const struct sockaddr *)path, sizeof *path) < 0) {
        perror(path->sun_path);
        exit(1);
    }
    check(rb_upgrade_receive(predecessor, PATIENCE_MS, &upgrade), "receive");
    check(rb_upgrade_take_files(upgrade, files, 2), "files");
    check(rb_upgrade_checkpoint(upgrade, &known), "checkpoint");
    check(rb_checkpoint_own(known, (uint8_t *)&server, sizeof server), "own");
    check(rb_checkpoint_free(&known), "checkpoint");
    options->upgrade = upgrade;
    check(rb_runtime_new(options, hooks, &runtime), "runtime");
    /* From here on this process serves. Any failure before, and the other one goes on. */
    check(rb_upgrade_confirm(&upgrade, NULL), "confirm");
    close(predecessor);
    for (uint32_t i = 0; i < server.clients; i++)
        if (server.client[i].call_waits)
            check(rb_call_from_parts(server.client[i].connection, server.client[i].serial, &calls[i]), "call");
}

/* --- serving ------------------------------------------------------------------------------------------------------- */

static void serve_client(int fd)
{
    uint32_t index = server.clients;
    rb_session_options options = {.size = sizeof options, .minor_version = 1, .program = 0x40000000, .slots = 4,
                                  .operations_max = 4, .request_bytes_max = 4096, .response_bytes_max = 4096};
    rb_client client;
    rb_session session;
    rb_key key;
    if (fd < 0 || index == CLIENTS_MAX) {
        close(fd);
        return;
    }
    server.clients++;
    options.security.flavor = 1;
    options.session_id[0] = (uint8_t)index;
    check(rb_add_connection(runtime, fd, &server.client[index].connection), "connection");
    check(rb_add_client(runtime, server.client[index].connection, &client), "client");
    check(rb_add_session(runtime, client, &options, &session), "session");
    check(rb_bind(runtime, server.client[index].connection, session), "bind");
    check(rb_insert(runtime, client, RB_CB_RECALL, index, &key), "insert");
    check(rb_try_run(runtime, key), "recall");
}

static void answer_call(uint32_t index)
{
    uint8_t bytes[24];
    struct writer w = {bytes, bytes, bytes + sizeof bytes};
    rb_bytes reply = {bytes, sizeof bytes};
    uint32_t accepted[] = {server.client[index].xid, 1, 0, 0, 0, 0};
    for (int i = 0; i < 6; i++)
        put32(&w, accepted[i]);
    check(rb_call_reply(runtime, &calls[index], &reply, 1), "reply");
    server.client[index].call_waits = 0;
}

/* It waits until the recall of its client is over. There is one at a time. */
static void put_aside(rb_call_item *item)
{
    struct reader r = {item->record, item->record + item->record_bytes, 0};
    for (uint32_t i = 0; i < server.clients; i++) {
        if (server.client[i].connection != item->connection || server.client[i].call_waits)
            continue;
        calls[i] = item->call;
        server.client[i].xid = get32(&r);
        server.client[i].call_waits = 1;
        check(rb_call_parts(calls[i], &server.client[i].connection, &server.client[i].serial), "parts");
        return;
    }
    check(rb_call_free(&item->call), "call");
}

/* Gives how many connections have gone. */
static unsigned handle_queue(void)
{
    rb_item item;
    unsigned gone = 0;
    while (rb_queue_poll(queue, &item, 1) > 0) {
        switch (item.kind) {
        case RB_ITEM_COMPLETION: {
            uint32_t index = (uint32_t)item.body.completion.run.cookie;
            server.recalled += item.body.completion.outcome.ending == RB_ENDED_REPLIED;
            if (server.client[index].call_waits)
                answer_call(index);
            break;
        }
        case RB_ITEM_CALL:
            put_aside(&item.body.call);
            break;
        case RB_ITEM_CLOSED:
            gone++;
            break;
        case RB_ITEM_EVENT:
            fprintf(stderr, "client %llx: %s\n", (unsigned long long)item.body.event.client, item.body.event.text);
            break;
        }
    }
    return gone;
}

int main(int argc, char **argv)
{
    rb_hooks hooks = {.size = sizeof hooks, .encode = encode, .checkpoint = checkpoint, .restored = restored};
    rb_options options = {.size = sizeof options, .reactors = 1, .lease_ms = 90000};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int files[2]; /* who connects is a client; who connects is the successor */
    if (argc < 2 || strlen(argv[1]) >= sizeof path.sun_path || rb_abi_version() != RB_ABI_VERSION) {
        fprintf(stderr, "usage: %s SOCKET [PORT]\n", argv[0]);
        return 2;
    }
    strcpy(path.sun_path, argv[1]);
    options.backend = getenv("UPGRADE_EPOLL") != NULL ? RB_BACKEND_EPOLL : RB_BACKEND_AUTO;
    if (argc > 2) {
        files[0] = listen_on("127.0.0.1", argv[2]);
        files[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(files[1], (struct sockaddr *)&path, sizeof path) < 0 || listen(files[1], 1) < 0) {
            perror(argv[1]);
            return 1;
        }
        check(rb_runtime_new(&options, &hooks, &runtime), "runtime");
    } else {
        take_over(&path, &options, &hooks, files);
    }
    check(rb_queue_open(runtime, 0, &queue), "queue");
    unsigned gone = 0;
    int is_over = 0;
    /* Until a successor has everything, or the last client has gone. */
    while (!is_over) {
        struct pollfd ready[] = {{files[0], POLLIN, 0}, {files[1], POLLIN, 0}, {rb_queue_fd(queue), POLLIN, 0}};
        if (poll(ready, 3, -1) < 0 && errno != EINTR)
            return 1;
        if (ready[0].revents)
            serve_client(accept(files[0], NULL, NULL));
        gone += handle_queue();
        is_over = (ready[1].revents && hand_over(files[1], files[0])) || (gone > 0 && gone == server.clients);
    }
    for (uint32_t i = 0; i < server.clients; i++)
        if (calls[i] != NULL)
            rb_call_free(&calls[i]);
    rb_queue_free(&queue), rb_runtime_free(&runtime);
    close(files[0]), close(files[1]);
    printf("recalled %u of %u\n", server.recalled, server.clients);
    return 0;
}
