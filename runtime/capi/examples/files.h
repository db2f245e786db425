/* The files of the example server, for nfs.h: names in one directory. A file's content is its name, and nobody can change
 * it; but a file may be opened for writing, and that is in conflict with the one delegation of it that there may be. */
#ifndef EXAMPLE_FILES_H
#define EXAMPLE_FILES_H

enum { ROOT = -1, LEASE_S = 90, IO_BYTES_MAX = 4096 };

/* A delegation's cookie is the index of the file, and how many delegations of it there have been; its stateid is made of
 * the cookie, and the filehandle is the index. */
struct file {
    char name[NAME_BYTES_MAX];
    uint32_t name_bytes, generation, is_written;
    rb_key delegation; /* 0: none */
};

static struct file files[FILES_MAX] = {{.name = "greeting", .name_bytes = 8}};
static uint32_t files_count = 1;

static void stateid_of(uint64_t cookie, rb_stateid *stateid)
{
    memset(stateid, 0, sizeof *stateid);
    stateid->seqid = 1;
    memcpy(stateid->other, &cookie, sizeof cookie);
}

static void put_stateid(struct writer *w, uint64_t cookie)
{
    rb_stateid stateid;
    stateid_of(cookie, &stateid);
    put32(w, stateid.seqid);
    put_bytes(w, stateid.other, 12);
}

/* The file that the current filehandle names; NULL: the root. */
static struct file *current(struct compound *c)
{
    return c->handle == (uint32_t)ROOT ? NULL : &files[c->handle];
}

static struct file *look_up(const uint8_t *name, uint32_t count, int create)
{
    for (struct file *f = files; f < files + files_count; f++)
        if (f->name_bytes == count && memcmp(f->name, name, count) == 0)
            return f;
    if (!create || files_count == FILES_MAX || count > NAME_BYTES_MAX)
        return NULL;
    struct file *f = &files[files_count++];
    memcpy(f->name, name, count);
    f->name_bytes = count;
    return f;
}

static uint32_t putfh(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t count;
    const uint8_t *handle = get_opaque(r, &count);
    (void)w;
    if (count != sizeof c->handle)
        return NFS4ERR_STALE;
    memcpy(&c->handle, handle, sizeof c->handle);
    if (c->handle < files_count || c->handle == (uint32_t)ROOT)
        return 0;
    c->handle = ROOT;
    return NFS4ERR_STALE;
}

static uint32_t lookup(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t count;
    const uint8_t *name = get_opaque(r, &count);
    struct file *file = look_up(name, count, 0);
    (void)w;
    if (file == NULL || c->handle != (uint32_t)ROOT)
        return NFS4ERR_NOENT;
    c->handle = (uint32_t)(file - files);
    return 0;
}

/* --- attributes: those that the Linux client cannot do without, by their numbers (RFC 8881 section 5) --------------- */

static const uint32_t SUPPORTED[2] = {
    1u << 0 | 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8 | 1u << 10 | 1u << 20 | 1u << 30 | 1u << 31, 1u << 1 | 1u << 3};

static void put_attribute(struct compound *c, uint32_t number, struct writer *w)
{
    struct file *file = current(c);
    switch (number) {
    case 0: put32(w, 2), put32(w, SUPPORTED[0]), put32(w, SUPPORTED[1]); break;
    case 1: put32(w, file ? 1 : 2); break;                         /* type: NF4REG, NF4DIR */
    case 2: put32(w, 0); break;                                    /* fh_expire_type: FH4_PERSISTENT */
    case 3: put64(w, file ? 1 : files_count); break;               /* change */
    case 4: put64(w, file ? file->name_bytes : files_count); break; /* size */
    case 8: put64(w, 1), put64(w, 0); break;                       /* fsid */
    case 10: put32(w, LEASE_S); break;                             /* lease_time */
    case 20: put64(w, (uint64_t)c->handle + 1); break;             /* fileid */
    case 30: case 31: put64(w, IO_BYTES_MAX); break;               /* maxread, maxwrite */
    case 33: put32(w, file ? 0666 : 0777); break;                  /* mode */
    case 35: put32(w, 1); break;                                   /* numlinks */
    }
}

static uint32_t getattr(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t mask[2] = {0, 0};
    for (uint32_t i = 0, words = get32(r); i < words && !r->bad; i++) {
        uint32_t word = get32(r);
        if (i < 2)
            mask[i] = word & SUPPORTED[i];
    }
    put32(w, 2);
    put32(w, mask[0]);
    put32(w, mask[1]);
    uint8_t *length = w->at;
    put32(w, 0);
    for (uint32_t number = 0; number < 64; number++)
        if (mask[number / 32] >> number % 32 & 1)
            put_attribute(c, number, w);
    patch32(w, length, (uint32_t)(w->at - length) - 4);
    return 0;
}

/* Takes every change, and makes none. */
static uint32_t setattr(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t count;
    (void)c;
    get_bytes(r, 16); /* stateid */
    for (count = get32(r); count > 0 && !r->bad; count--)
        get32(r);
    get_opaque(r, &count);
    put32(w, 0); /* nothing was set */
    return 0;
}

/* Everybody may do what he asks for. */
static uint32_t check_access(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t asked = get32(r) & 0x3f;
    (void)c;
    put32(w, asked);
    put32(w, asked);
    return 0;
}

/* --- opens and delegations ----------------------------------------------------------------------------------------- */

/* The rest of an OPEN's arguments; gives the file, or NULL. */
static struct file *file_to_open(struct compound *c, struct reader *r)
{
    uint32_t count, mode, create = get32(r) == 1;
    if (create) {
        mode = get32(r);
        if (mode > 1) /* exclusive: every time is the first */
            get_bytes(r, 8);
        for (count = mode == 2 ? 0 : get32(r); count > 0 && !r->bad; count--)
            get32(r);
        if (mode != 2)
            get_opaque(r, &count);
    }
    switch (get32(r)) {
    case 0: { /* CLAIM_NULL: by name */
        const uint8_t *name = get_opaque(r, &count);
        return r->bad ? NULL : look_up(name, count, (int)create);
    }
    case 4: /* CLAIM_FH */
        return current(c);
    case 5: /* CLAIM_DELEG_CUR_FH: an open that the client has made by itself, under its delegation */
        get_bytes(r, 16);
        return current(c);
    }
    r->bad = 1;
    return NULL;
}

static uint32_t open_file(struct compound *c, struct reader *r, struct writer *w)
{
    uint32_t count, access, want;
    get32(r);
    access = get32(r);
    want = access & 0xff00;
    get32(r); /* deny */
    get64(r);
    get_opaque(r, &count); /* owner */
    struct file *file = file_to_open(c, r);
    if (r->bad)
        return NFS4ERR_BADXDR;
    if (file == NULL || c->client == CLIENTS_MAX)
        return files_count == FILES_MAX ? NFS4ERR_NOSPC : NFS4ERR_NOENT;
    uint64_t cookie = (uint32_t)(file - files);
    if ((access & 2) && file->delegation != 0) {
        delegation_conflicts(file->delegation);
        return NFS4ERR_DELAY;
    }
    /* Opens are not kept: a file that was ever opened for writing is not delegated again. */
    file->is_written |= access & 2;
    c->handle = (uint32_t)cookie;
    put_stateid(w, cookie);
    for (int i = 0; i < 7; i++) /* change info, flags, attributes */
        put32(w, 0);
    /* To who wants one for reading, or does not say, and to one client. */
    int is_granted = !file->is_written && want != 0x0200 && want <= 0x0300 && file->delegation == 0;
    if (is_granted) {
        cookie |= (uint64_t)++file->generation << 32;
        file->delegation = delegation_granted(c->client, cookie);
    }
    if (!is_granted || file->delegation == 0) {
        put32(w, 0);
        return 0;
    }
    put32(w, 1); /* OPEN_DELEGATE_READ */
    put_stateid(w, cookie);
    for (int i = 0; i < 5; i++) /* not being recalled; an ACE that says nothing */
        put32(w, 0);
    return 0;
}

static uint32_t close_file(struct compound *c, struct reader *r, struct writer *w)
{
    (void)c;
    get32(r); /* seqid */
    put_bytes(w, get_bytes(r, 16), 16);
    return 0;
}

static uint32_t read_file(struct compound *c, struct reader *r, struct writer *w)
{
    struct file *file = current(c);
    get_bytes(r, 16); /* stateid */
    uint64_t offset = get64(r);
    uint32_t count = get32(r), left;
    if (file == NULL)
        return NFS4ERR_STALE;
    left = offset < file->name_bytes ? file->name_bytes - (uint32_t)offset : 0;
    put32(w, count >= left); /* to the end */
    put_opaque(w, file->name + (left > 0 ? offset : 0), count < left ? count : left);
    return 0;
}

static uint32_t delegreturn(struct compound *c, struct reader *r, struct writer *w)
{
    uint64_t cookie;
    (void)c, (void)w;
    get32(r);
    memcpy(&cookie, get_bytes(r, 12), sizeof cookie);
    uint32_t index = (uint32_t)cookie;
    if (index >= files_count || files[index].generation != cookie >> 32 || files[index].delegation == 0)
        return NFS4ERR_BAD_STATEID;
    delegation_returned(files[index].delegation);
    files[index].delegation = 0;
    return 0;
}

#endif
