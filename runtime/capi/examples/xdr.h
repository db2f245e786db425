/* Just enough XDR (RFC 4506) for the example server: cursors that remember an error. */
#ifndef EXAMPLE_XDR_H
#define EXAMPLE_XDR_H

#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *at, *end;
    int bad;
};

struct writer {
    uint8_t *begin, *at, *end;
};

static inline const uint8_t *get_bytes(struct reader *r, size_t count)
{
    static const uint8_t nothing[2048];
    size_t padded = (count + 3) & ~(size_t)3;
    if (r->bad || count > sizeof nothing || padded > (size_t)(r->end - r->at)) {
        r->bad = 1;
        return nothing;
    }
    r->at += padded;
    return r->at - padded;
}

static inline uint32_t get32(struct reader *r)
{
    const uint8_t *b = get_bytes(r, 4);
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline uint64_t get64(struct reader *r)
{
    uint64_t high = get32(r);
    return high << 32 | get32(r);
}

static inline const uint8_t *get_opaque(struct reader *r, uint32_t *count)
{
    *count = get32(r);
    const uint8_t *bytes = get_bytes(r, *count);
    if (r->bad)
        *count = 0;
    return bytes;
}

/* What does not fit is left out: the caller's buffers are large enough for what it writes. */
static inline void put_bytes(struct writer *w, const void *bytes, size_t count)
{
    size_t padded = (count + 3) & ~(size_t)3;
    if (padded > (size_t)(w->end - w->at))
        return;
    memset(w->at, 0, padded);
    if (count > 0)
        memcpy(w->at, bytes, count);
    w->at += padded;
}

static inline void put32(struct writer *w, uint32_t value)
{
    uint8_t b[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    put_bytes(w, b, 4);
}

static inline void put64(struct writer *w, uint64_t value)
{
    put32(w, (uint32_t)(value >> 32));
    put32(w, (uint32_t)value);
}

static inline void put_opaque(struct writer *w, const void *bytes, uint32_t count)
{
    put32(w, count);
    put_bytes(w, bytes, count);
}

/* Writes over what was put at `at`. */
static inline void patch32(const struct writer *w, uint8_t *at, uint32_t value)
{
    struct writer there = {w->begin, at, w->end};
    put32(&there, value);
}

#endif
