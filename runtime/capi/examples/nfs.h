/* The operations of NFSv4.1 that the example server knows: those that the client swarm of this project uses, and those that
 * the Linux client needs to mount it and to read a file. Five functions, declared first, are where the server comes in; those
 * that give a status may refuse what a client asks for. There is no reply cache and no open state. */
#ifndef EXAMPLE_NFS_H
#define EXAMPLE_NFS_H

#include "xdr.h"
#include <ringback.h>

struct connection;
/* CREATE_SESSION: a client wants a session, with a backchannel on this connection. */
static uint32_t session_created(struct connection *connection, uint32_t client, const rb_session_options *options);
/* SEQUENCE: what the client is to be told about its callback path (RFC 8881 section 18.46.3). */
static uint32_t session_status(uint32_t client, uint32_t *flags);
/* OPEN grants a delegation, of which `cookie` says all; gives the key of its recall. 0: it is not granted. */
static rb_key delegation_granted(uint32_t client, uint64_t cookie);
/* OPEN is in conflict with a delegation. */
static void delegation_conflicts(rb_key key);
/* DELEGRETURN. */
static void delegation_returned(rb_key key);

/* The results of one operation are never longer than RESULT_BYTES_MAX. */
enum { CLIENTS_MAX = 64, FILES_MAX = 4096, NAME_BYTES_MAX = 64, SLOTS = 16, RESULT_BYTES_MAX = 128 };
enum {
    NFS4ERR_NOENT = 2,
    NFS4ERR_INVAL = 22,
    NFS4ERR_NOSPC = 28,
    NFS4ERR_STALE = 70,
    NFS4ERR_DELAY = 10008,
    NFS4ERR_BAD_STATEID = 10025,
    NFS4ERR_BADXDR = 10036,
    NFS4ERR_OP_ILLEGAL = 10044,
    NFS4ERR_BADSESSION = 10052,
    NFS4ERR_REP_TOO_BIG = 10066
};

/* Each operation reads its arguments, writes what follows its status, and gives the status. */
struct compound {
    struct connection *connection;
    uint32_t client; /* of the session; CLIENTS_MAX: none */
    uint32_t handle; /* the current filehandle: a file's index, or ROOT */
};

static void copy(struct reader *r, struct writer *w, size_t count)
{
    put_bytes(w, get_bytes(r, count), count);
}

#include "files.h"

static uint32_t clients_count;

static uint32_t exchange_id(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t count;
    (void)c;
    get_bytes(r, 8); /* the verifier; this server takes every client for a new one */
    get_opaque(r, &count);
    get32(r); /* flags */
    get32(r); /* state protection: none */
    if (get32(r) > 0) { /* which implementation it is: domain, name, date */
        get_opaque(r, &count);
        get_opaque(r, &count);
        get_bytes(r, 12);
    }
    if (r->bad)
        return NFS4ERR_BADXDR;
    if (clients_count == CLIENTS_MAX)
        return NFS4ERR_NOSPC;
    put64(w, clients_count++);
    put32(w, 1);          /* the sequence id of CREATE_SESSION */
    put32(w, 0x00010000); /* EXCHGID4_FLAG_USE_NON_PNFS */
    put32(w, 0);
    put64(w, 0); /* server owner: minor id, and */
    put_opaque(w, "example", 7);
    put_opaque(w, "example", 7);
    put32(w, 0);
    return 0;
}

static uint32_t create_session(struct compound *c, struct reader *r, struct writer *w)
{
    static uint8_t name[256];
    uint32_t attributes[2][7], gids[16], count, status, index = (uint32_t)get64(r);
    rb_session_options options = {.size = sizeof options, .minor_version = 1};
    uint32_t sequence = get32(r);
    if (index >= clients_count)
        return NFS4ERR_NOENT;
    get32(r); /* flags: the backchannel is on this connection */
    for (int channel = 0; channel < 2; channel++) {
        for (int i = 0; i < 7; i++)
            attributes[channel][i] = get32(r);
        attributes[channel][5] = attributes[channel][5] < SLOTS ? attributes[channel][5] : SLOTS;
    }
    options.program = get32(r);
    get32(r); /* one credential, and it is AUTH_SYS */
    options.security.flavor = get32(r);
    options.security.stamp = get32(r);
    const uint8_t *machine = get_opaque(r, &count);
    memcpy(name, machine, count & 255);
    options.security.machine_name = name;
    options.security.machine_name_bytes = count & 255;
    options.security.uid = get32(r);
    options.security.gid = get32(r);
    options.security.gids_count = get32(r) & 15;
    for (size_t i = 0; i < options.security.gids_count; i++)
        gids[i] = get32(r);
    options.security.gids = gids;
    memcpy(options.session_id, &index, sizeof index);
    options.request_bytes_max = attributes[1][1];
    options.response_bytes_max = attributes[1][2];
    options.operations_max = attributes[1][4];
    options.slots = attributes[1][5];

    if (r->bad)
        return NFS4ERR_BADXDR;
    if ((status = session_created(c->connection, index, &options)) != 0)
        return status;
    put_bytes(w, options.session_id, 16);
    put32(w, sequence);
    put32(w, 2); /* CREATE_SESSION4_FLAG_CONN_BACK_CHAN */
    for (int channel = 0; channel < 2; channel++)
        for (int i = 0; i < 7; i++)
            put32(w, attributes[channel][i]);
    return 0;
}

static uint32_t sequence(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t index, flags, status;
    const uint8_t *id = get_bytes(r, 16);
    memcpy(&index, id, sizeof index);
    if (index >= clients_count)
        return NFS4ERR_BADSESSION;
    if ((status = session_status(index, &flags)) != 0)
        return status;
    c->client = index;
    put_bytes(w, id, 16);
    copy(r, w, 8); /* sequence id, slot */
    get64(r);      /* highest slot, whether to cache */
    put32(w, SLOTS - 1);
    put32(w, SLOTS - 1);
    put32(w, flags);
    return 0;
}

static uint32_t operation(uint32_t number, struct compound *c, struct reader *r, struct writer *w)
{
    switch (number) {
    case 3: return check_access(c, r, w);
    case 4: return close_file(c, r, w);
    case 8: return delegreturn(c, r, w);
    case 9: return getattr(c, r, w);
    case 10: put_opaque(w, &c->handle, sizeof c->handle); return 0;     /* GETFH */
    case 15: return lookup(c, r, w);
    case 18: return open_file(c, r, w);
    case 22: return putfh(c, r, w);
    case 24: c->handle = ROOT; return 0;                                /* PUTROOTFH */
    case 25: return read_file(c, r, w);
    case 34: return setattr(c, r, w);
    case 42: return exchange_id(c, r, w);
    case 43: return create_session(c, r, w);
    case 44: get_bytes(r, 16); return 0;                                /* DESTROY_SESSION */
    case 52: get32(r), put32(w, 1), put32(w, 1); return 0;              /* SECINFO_NO_NAME: AUTH_SYS */
    case 53: return sequence(c, r, w);
    case 57: get64(r); return 0;                                        /* DESTROY_CLIENTID: kept until the end */
    case 58: get32(r); return 0;                                        /* RECLAIM_COMPLETE */
    default: return NFS4ERR_OP_ILLEGAL;
    }
}

/* Answers the call in `record`; gives the length of the reply. 0: it is no call of NFSv4. */
static size_t nfs_answer(struct connection *connection, const uint8_t *record, size_t bytes, uint8_t *reply, size_t room)
{
    struct reader r = {record, record + bytes, 0};
    struct writer w = {reply, reply, reply + room};
    struct compound c = {connection, CLIENTS_MAX, ROOT};
    uint32_t count, status = 0, results = 0, xid = get32(&r);
    if (get32(&r) != 0 || get32(&r) != 2 || get32(&r) != 100003 || get32(&r) != 4)
        return 0;
    uint32_t procedure = get32(&r);
    for (int i = 0; i < 2; i++) { /* credential and verifier */
        get32(&r);
        get_opaque(&r, &count);
    }
    put32(&w, xid);
    put32(&w, 1);
    for (int i = 0; i < 4; i++) /* accepted, no verifier, success */
        put32(&w, 0);
    if (procedure == 0)
        return (size_t)(w.at - w.begin);
    uint8_t *head = w.at;
    const uint8_t *tag = get_opaque(&r, &count);
    put32(&w, 0);
    put_opaque(&w, tag, count);
    uint8_t *results_at = w.at;
    put32(&w, 0);
    get32(&r); /* minor version */
    for (uint32_t operations = get32(&r); results < operations && status == 0 && !r.bad; results++) {
        uint32_t number = get32(&r);
        put32(&w, number);
        uint8_t *at = w.at;
        put32(&w, 0);
        /* What may not fit is not begun; a refusal still does, for the results before it were shorter than that. */
        status = w.end - w.at < RESULT_BYTES_MAX + 8 ? NFS4ERR_REP_TOO_BIG : operation(number, &c, &r, &w);
        if (r.bad)
            status = NFS4ERR_BADXDR;
        if (status != 0)
            w.at = at + 4;
        patch32(&w, at, status);
    }
    patch32(&w, head, status);
    patch32(&w, results_at, results);
    return (size_t)(w.at - w.begin);
}

#endif
