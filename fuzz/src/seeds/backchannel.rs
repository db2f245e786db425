//! Seeds of the backchannel core: short stories, one step after the other.

use super::{Seed, seed};

/// An honest client with one session, and one that may do anything with two; drained at the end.
const HONEST: u8 = 0x10;
const HOSTILE: u8 = 0xd1;
/// One with a path of minor version 0 and a window of two; and one that may do anything, with a session beside it.
const PATH: u8 = 0x34;
const HOSTILE_PATH: u8 = 0x75;

// The steps, with their arguments.
const RUN: u8 = 0;
const SEND: u8 = 3;
const ANSWER: u8 = 5;
const CUT: u8 = 8;
const BIND: u8 = 9;
const PASS: u8 = 10;
const CANCEL: u8 = 11;
const REPLACE: u8 = 12;
const CONTROL: u8 = 13;
const STATE: u8 = 14;
const TOLD: u8 = 15;
const DRAIN_SESSION: u8 = 16;
const SEND_SMALL: u8 = 17;
const REPEAT: u8 = 18;
const NOISE: u8 = 19;
const CONNECT: u8 = 20;
const CONFIRM: u8 = 21;

/// A path gets its connection, and CB_NULL is answered.
const UP: [u8; 8] = [CONNECT, 0, SEND, 0, ANSWER, 0, 11, 0];

/// Two callbacks that are sent.
const SENT: [u8; 8] = [RUN, 0, 0, RUN, 7, 0, SEND, 0];

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, kind: u8, steps: &[&[u8]]| {
        let bytes = [&[kind], steps.concat().as_slice()].concat();
        seeds.push(seed("backchannel", name, bytes));
    };
    add("answered", HONEST, &[&SENT, &[ANSWER, 0, 11, 0, ANSWER, 0, 11, 0]]);
    add("batch", HONEST | 6, &[&[RUN, 6, 0, RUN, 12, 0], &SENT, &[ANSWER, 0, 11, 0], &SENT]);
    add("batch_stops", HONEST | 6, &[&[RUN, 6, 0, RUN, 12, 0], &SENT, &[ANSWER, 0, 0x1b, 1, SEND, 0]]);
    add("client_in_courtesy", HONEST, &[&SENT, &[STATE, 2, RUN, 1, 0, STATE, 0]]);
    add("connection_lost", HONEST, &[&SENT, &[CUT, 0, BIND, 0, 0, SEND, 0, ANSWER, 0, 11, 0]]);
    add("control", HONEST, &[&SENT, &[CONTROL, 0, RUN, 2, 0, SEND, 0, CUT, 0, BIND, 0, 0, SEND, 0]]);
    add("delayed", HONEST, &[&SENT, &[ANSWER, 0, 2, 0, ANSWER, 0, 0x1b, 0, PASS, 8, SEND, 0]]);
    add(
        "given_up",
        HONEST,
        &[&SENT, &[CANCEL, 0, PASS, 20, SEND, 0, ANSWER, 0, 11, 0, ANSWER, 0, 11, 0, RUN, 2, 0, SEND, 0]],
    );
    add("path_down", HONEST, &[&[CUT, 0, RUN, 0, 0, TOLD, PASS, 24]]);
    add("refused_by_prepare", HONEST, &[&[RUN, 0, 1, RUN, 1, 2, RUN, 2, 3], &SENT]);
    add("session_drained", HONEST | 0x40, &[&SENT, &[DRAIN_SESSION, 0, BIND, 1, 0, SEND, 0]]);
    add("session_replaced", HONEST, &[&SENT, &[REPLACE, 0, BIND, 0, 0, SEND, 0, ANSWER, 0, 11, 0]]);
    add("small_buffer", HONEST, &[&[RUN, 0, 0x30, SEND_SMALL, 0, 10, SEND, 0]]);
    add("time_out", HONEST, &[&SENT, &[PASS, 30]]);
    for (which, name) in
        ["delay", "bad_session", "bad_slot", "bad_xdr", "bad_high_slot", "not_bound"].iter().enumerate()
    {
        add(&format!("says_{name}"), HOSTILE, &[&SENT, &[ANSWER, 0, 4, which as u8, SEND, 0, PASS, 10, SEND, 0]]);
    }
    for (how, name) in [(3, "refuses"), (5, "wrong_echo"), (6, "cut_off"), (7, "flipped"), (8, "missing"), (9, "other")]
    {
        add(name, HOSTILE, &[&SENT, &[ANSWER, 0, how, 9, 0, PASS, 10, SEND, 0]]);
    }
    add("shrinks", HOSTILE, &[&SENT, &[ANSWER, 0, 10, 2, SEND, 0, ANSWER, 0, 10, 3, RUN, 2, 0, SEND, 0]]);
    add("repeats", HOSTILE, &[&SENT, &[ANSWER, 0, 11, 0, REPEAT, 0, SEND, 0]]);
    add("noise", HOSTILE, &[&SENT, &[NOISE, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]]);
    paths(add);
}

fn paths(mut add: impl FnMut(&str, u8, &[&[u8]])) {
    add("path_answered", PATH, &[&UP, &SENT, &[ANSWER, 0, 11, 0, ANSWER, 0, 11, 0]]);
    add("path_not_reached", PATH, &[&[RUN, 0, 0, CONNECT, 1, PASS, 8], &UP, &SENT, &[CUT, 0, PASS, 24]]);
    add("path_lost", PATH, &[&UP, &SENT, &[CUT, 0, CONNECT, 0, SEND, 0, ANSWER, 0, 11, 0, CONFIRM, 1], &UP, &SENT]);
    add(
        "path_replaced",
        PATH,
        &[&UP, &SENT, &[CONNECT, 2, CONFIRM, 0, ANSWER, 0, 11, 0], &UP, &[SEND, 0, DRAIN_SESSION, 0]],
    );
    add("path_delayed", PATH, &[&UP, &SENT, &[ANSWER, 0, 2, 0, ANSWER, 0, 0x1b, 0, PASS, 8, SEND, 0]]);
    add("path_silent", PATH, &[&UP, &SENT, &[PASS, 16, CONNECT, 0, SEND, 0, PASS, 30]]);
    add(
        "path_refuses_null",
        HOSTILE_PATH,
        &[&[CONNECT, 0, SEND, 1, ANSWER, 0, 3, 3, RUN, 0, 0, PASS, 9, SEND, 1], &UP],
    );
    add("path_and_session", HOSTILE_PATH, &[&UP, &SENT, &[SEND, 1, CUT, 0, BIND, 1, 0, SEND, 0, REPLACE, 1]]);
    for (how, name) in [(3, "refuses"), (6, "cut_off"), (8, "missing"), (9, "other")] {
        add(
            &format!("path_{name}"),
            HOSTILE_PATH,
            &[&[CONNECT, 0, SEND, 1, ANSWER, 0, 11, 0, RUN, 0, 0, SEND, 1, ANSWER, 0, how, 9, PASS, 10, SEND, 1]],
        );
    }
}
