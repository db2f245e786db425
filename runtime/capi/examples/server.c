/* An NFSv4.1 server with an event loop and sockets of its own: one thread, epoll. It grants read delegations, and recalls
 * them through libringback when somebody wants to write. What it knows of NFS is in nfs.h.
 *
 *     cc server.c -o server $(pkg-config --cflags --libs ringback)
 *     ./server 0                                    it says where it listens, and ends with SIGINT or SIGTERM
 */
#include "listen.h"
#include "nfs.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct connection {
    int fd, is_gone;
    rb_connection id;
    rb_reader *reader;
    rb_outbound *outbound; /* what is being sent: */
    const uint8_t *at;     /* from here on */
    size_t left;           /* so many bytes */
    struct connection *next;
};

static rb_runtime *runtime;
static rb_queue *queue;
static rb_drain *drain;
static struct { rb_client id; rb_session session; } clients[CLIENTS_MAX];
static struct connection *connections;
static unsigned granted, recalled, returned;
static int epoll, is_over;

/* For what cannot fail, whatever clients send. */
static void check(int answer, const char *what)
{
    if (answer < 0) {
        fprintf(stderr, "%s: %s\n", what, rb_last_error());
        exit(1);
    }
}

/* --- callbacks: what the protocol engine asks for, and the hooks --------------------------------------------------- */

static uint32_t session_created(struct connection *connection, uint32_t client, const rb_session_options *options)
{
    if (clients[client].session.serial != 0)
        return NFS4ERR_NOSPC; /* one for each client */
    if (clients[client].id == 0)
        check(rb_add_client(runtime, connection->id, &clients[client].id), "client");
    if (rb_add_session(runtime, clients[client].id, options, &clients[client].session) < 0) {
        fprintf(stderr, "session: %s\n", rb_last_error());
        return NFS4ERR_INVAL;
    }
    check(rb_bind(runtime, connection->id, clients[client].session), "bind");
    return 0;
}

static uint32_t session_status(uint32_t client, uint32_t *flags)
{
    if (clients[client].session.serial == 0)
        return NFS4ERR_BADSESSION;
    check(rb_seq4_status(runtime, clients[client].id, &clients[client].session, flags), "status");
    return 0;
}

static rb_key delegation_granted(uint32_t client, uint64_t cookie)
{
    rb_key key;
    if (rb_insert(runtime, clients[client].id, RB_CB_RECALL, cookie, &key) < 0)
        return 0;
    granted++;
    return key;
}

/* The client asks again until the delegation has come back, and asking for the recall again is harmless. */
static void delegation_conflicts(rb_key key)
{
    check(rb_try_run(runtime, key), "recall");
}

/* If the recall is running, that still ends with one completion. */
static void delegation_returned(rb_key key)
{
    check(rb_remove(runtime, key), "return");
    returned++;
}

/* Runs on a reactor. All that it needs is in the cookie, so it shares no memory with the event loop. */
static int encode(void *user, const rb_run *run, rb_args *args)
{
    uint32_t index = (uint32_t)run->cookie;
    rb_recall_args recall = {.fh = {(const uint8_t *)&index, sizeof index}};
    (void)user;
    stateid_of(run->cookie, &recall.stateid);
    return rb_encode_recall(args, &recall);
}

/* Runs on a reactor. The client may not have seen the OPEN reply that granted it: ask again in 100 ms. */
static int64_t done(void *user, const rb_run *run, const rb_outcome *outcome, const uint8_t *results, size_t count)
{
    int is_early = outcome->ending == RB_ENDED_REPLIED && outcome->status == NFS4ERR_BAD_STATEID;
    (void)user, (void)run, (void)results, (void)count;
    return is_early ? 100000000 : RB_DONE_FINISH;
}

/* --- sockets ------------------------------------------------------------------------------------------------------ */

static void poll_for(int operation, int fd, uint32_t events, void *what)
{
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) {
        perror("epoll_ctl");
        exit(1);
    }
}

static void watch(struct connection *c, uint32_t events)
{
    if (!c->is_gone)
        poll_for(EPOLL_CTL_MOD, c->fd, events | (c->left > 0 ? EPOLLOUT : 0), c);
}

static void accept_connection(int listener)
{
    struct connection *c = calloc(1, sizeof *c);
    rb_transport transport = {.size = sizeof transport, .user = c};
    if (c == NULL || drain != NULL || (c->fd = accept(listener, NULL, NULL)) < 0) {
        free(c);
        return;
    }
    c->next = connections;
    connections = c;
    check(rb_reader_new(1 << 20, &c->reader), "reader");
    check(rb_add_transport(runtime, &transport, &c->id), "transport");
    poll_for(EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
}

/* Frees a connection of which the runtime has said that it is done with it (RB_ITEM_CLOSE). */
static void free_connection(struct connection *c)
{
    struct connection **at = &connections;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    if (c->outbound != NULL)
        check(rb_outbound_complete(&c->outbound, ECONNRESET), "complete");
    rb_reader_free(&c->reader);
    close(c->fd);
    free(c);
}

static void send_some(struct connection *c)
{
    while (c->left > 0) {
        ssize_t sent = send(c->fd, c->at, c->left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN)
            return watch(c, EPOLLIN);
        if (sent < 0) {
            check(rb_outbound_complete(&c->outbound, errno), "complete");
            c->left = 0;
            return;
        }
        c->at += sent;
        c->left -= (size_t)sent;
    }
    check(rb_outbound_complete(&c->outbound, 0), "complete");
    watch(c, EPOLLIN);
}

static void receive_some(struct connection *c)
{
    static uint8_t bytes[65536];
    ssize_t received = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received <= 0 || rb_reader_feed(c->reader, runtime, c->id, bytes, (size_t)received) < 0) {
        poll_for(EPOLL_CTL_DEL, c->fd, 0, NULL);
        c->is_gone = 1; /* RB_ITEM_CLOSE will follow */
        check(rb_close_connection(runtime, c->id), "close");
    }
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static struct connection *connection_of(rb_connection id)
{
    struct connection *c = connections;
    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

static void answer(rb_call_item *item)
{
    static uint8_t reply[65536];
    struct connection *c = connection_of(item->connection);
    size_t bytes = c == NULL || drain != NULL ? 0 : nfs_answer(c, item->record, item->record_bytes, reply, sizeof reply);
    rb_bytes buffer = {reply, bytes};
    if (bytes > 0)
        check(rb_call_reply(runtime, &item->call, &buffer, 1), "reply");
    else
        rb_call_free(&item->call);
}

static void handle(rb_item *item)
{
    struct connection *c = item->body.user;
    switch (item->kind) {
    case RB_ITEM_COMPLETION:
        recalled += item->body.completion.outcome.ending == RB_ENDED_REPLIED;
        break;
    case RB_ITEM_CALL:
        answer(&item->body.call);
        break;
    case RB_ITEM_SEND:
        c = item->body.send.user;
        c->outbound = item->body.send.outbound;
        c->at = item->body.send.bytes;
        c->left = item->body.send.bytes_count;
        send_some(c);
        break;
    case RB_ITEM_PAUSE:
        watch(c, 0);
        break;
    case RB_ITEM_RESUME:
        watch(c, EPOLLIN);
        break;
    case RB_ITEM_CLOSE:
        free_connection(c);
        break;
    case RB_ITEM_NOTICE: /* the drain has ended */
        is_over = 1;
        break;
    }
}

static void handle_queue(void)
{
    rb_item items[64];
    for (int count; (count = rb_queue_poll(queue, items, 64)) > 0;)
        for (int i = 0; i < count; i++)
            handle(&items[i]);
}

int main(int argc, char **argv)
{
    rb_hooks hooks = {.size = sizeof hooks, .encode = encode, .done = done};
    rb_options options = {.size = sizeof options, .reactors = 1, .lease_ms = LEASE_S * 1000};
    struct epoll_event events[64];
    sigset_t signals;
    if (argc < 2 || rb_abi_version() != RB_ABI_VERSION) {
        fprintf(stderr, "usage: %s PORT [ADDRESS [epoll]]\n", argv[0]);
        return 2;
    }
    options.backend = argc > 3 ? RB_BACKEND_EPOLL : RB_BACKEND_AUTO;
    sigemptyset(&signals), sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* for signalfd; the library's threads block all by themselves */
    check(rb_runtime_new(&options, &hooks, &runtime), "runtime");
    check(rb_queue_open(runtime, 0, &queue), "queue");
    int listener = listen_on(argc > 2 ? argv[2] : "127.0.0.1", argv[1]), quit = signalfd(-1, &signals, SFD_CLOEXEC);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    poll_for(EPOLL_CTL_ADD, listener, EPOLLIN, &listener);
    poll_for(EPOLL_CTL_ADD, rb_queue_fd(queue), EPOLLIN, &queue);
    poll_for(EPOLL_CTL_ADD, quit, EPOLLIN, &quit);
    while (!is_over) {
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            if (what == &listener) {
                accept_connection(listener);
            } else if (what == &quit) {
                poll_for(EPOLL_CTL_DEL, quit, 0, NULL);
                poll_for(EPOLL_CTL_DEL, listener, 0, NULL);
                check(rb_drain_start(runtime, 1000, queue, NULL, &drain), "drain");
            } else if (what != &queue) {
                struct connection *c = what;
                if ((events[i].events & EPOLLOUT) && c->left > 0)
                    send_some(c);
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    receive_some(c);
            }
        }
        handle_queue(); /* last: it may free connections */
    }
    check(rb_shutdown(runtime, 0, NULL), "shutdown");
    handle_queue();
    rb_drain_free(&drain), rb_queue_free(&queue), rb_runtime_free(&runtime);
    printf("granted %u, recalled %u, returned %u\n", granted, recalled, returned);
    return connections != NULL;
}
