//! The flight record in words: what [`FlightRecord::to_json_lines`](ringback::FlightRecord) has written, of a running server or from a
//! file.

use serde::Deserialize;
use std::fmt;

/// The first line: about the record.
#[derive(Debug, Deserialize)]
struct Head {
    ringback_flight: u32,
    now_ns: u64,
}

/// A step. Fields that a later version adds are left out.
#[derive(Debug, Deserialize)]
struct Step {
    at_ns: u64,
    reactor: usize,
    step: String,
    client: Option<String>,
    key: Option<String>,
    op: Option<String>,
    detail: Option<String>,
    connection: Option<String>,
    session: Option<u64>,
    slot: Option<u32>,
    xid: Option<u32>,
}

/// The version of the lines that is known here.
const VERSION: u32 = 1;

/// Makes words of a record, one line for each step. An error says which line is none of a record, and why.
pub fn in_words(lines: &str) -> Result<String, String> {
    let mut lines = lines.lines().enumerate();
    let (_, first) = lines.next().ok_or("empty: no flight record")?;
    let head: Head = serde_json::from_str(first).map_err(|e| format!("line 1: not a flight record: {e}"))?;
    if head.ringback_flight != VERSION {
        let found = head.ringback_flight;
        return Err(format!("line 1: a flight record of version {found}; this program knows version {VERSION}"));
    }
    let mut words = String::new();
    for (at, line) in lines {
        let step: Step = serde_json::from_str(line).map_err(|e| format!("line {}: {e}", at + 1))?;
        // Before the record was read: the time of day may have been set meanwhile, this has not.
        let before_s = head.now_ns.saturating_sub(step.at_ns) as f64 / 1e9;
        words += &format!("-{before_s:.6} s  {step}\n");
    }
    Ok(words)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { reactor, step, client, key, op, detail, connection, session, slot, xid, .. } = self;
        write!(f, "reactor {reactor}")?;
        let mut put = |name: &str, value: &Option<String>| match value {
            Some(value) => write!(f, "  {name}{}", value.escape_debug()),
            None => Ok(()),
        };
        put("client ", client)?;
        put("key ", key)?;
        put("", op)?;
        put("", &Some(step.clone()))?;
        put("", detail)?;
        put("connection ", connection)?;
        put("session ", &session.map(|session| session.to_string()))?;
        put("slot ", &slot.map(|slot| slot.to_string()))?;
        put("xid ", &xid.map(|xid| format!("{xid:#010x}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"ringback_flight\":1,\"now_ns\":5000000000,\"unix_ms\":1}\n";

    #[test]
    fn a_record_is_told_in_words() {
        let sent = "{\"at_ns\":4750000000,\"reactor\":0,\"number\":7,\"step\":\"sent\",\"client\":\"100000000\",\"key\":\"2\",\
            \"op\":\"CB_RECALL\",\"session\":3,\"slot\":0,\"xid\":255,\"later\":true}\n";
        let path = "{\"at_ns\":5000000000,\"reactor\":1,\"number\":0,\"step\":\"path\",\"client\":\"1\",\"detail\":\"down\"}\n";
        assert_eq!(
            in_words(&format!("{HEAD}{sent}{path}")).unwrap(),
            "-0.250000 s  reactor 0  client 100000000  key 2  CB_RECALL  sent  session 3  slot 0  xid 0x000000ff\n\
             -0.000000 s  reactor 1  client 1  path  down\n"
        );
        assert_eq!(in_words(HEAD).unwrap(), "");
    }

    #[test]
    fn what_is_no_record_is_refused_by_line() {
        let complaint = |text: &str| in_words(text).unwrap_err();
        assert!(complaint("").contains("empty") && complaint("x\n").starts_with("line 1: not a flight record"));
        assert!(
            complaint(&HEAD.replace("flight\":1", "flight\":2")).contains("version 2; this program knows version 1")
        );
        assert!(complaint(&format!("{HEAD}{{}}\n")).starts_with("line 2: missing field"));
        // What a stranger put into a file does not reach the terminal as it is.
        let step = "{\"at_ns\":1,\"reactor\":0,\"step\":\"\\u001b[2J\"}";
        assert!(!in_words(&format!("{HEAD}{step}\n")).unwrap().contains('\u{1b}'));
    }
}
