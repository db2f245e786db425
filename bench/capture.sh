#!/usr/bin/env bash
# Records a small storm on loopback and has tshark, which shares no code with this project, decode it: every callback call
# must be a well-formed CB_COMPOUND {CB_SEQUENCE, CB_RECALL, ...}, and be answered by exactly one well-formed reply with
# NFS4_OK; there must be as many calls and as many CB_RECALLs as the storm and its swarm say.
#
#   bench/capture.sh [STORM]      STORM: the storm command, built if not given
#
# Environment: DELEGATIONS (200), CLIENTS (4), CB_OPERATIONS (2: one CB_RECALL in each call), PORT (20490), BACKEND (auto), KEEP
# (a folder for the capture and the results).
# Exit status: 0 right, 1 wrong, 77 skipped because something is missing here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DELEGATIONS=${DELEGATIONS:-200} CLIENTS=${CLIENTS:-4} CB_OPERATIONS=${CB_OPERATIONS:-2} PORT=${PORT:-20490} BACKEND=${BACKEND:-auto}
# The number that tshark knows the callback program by (RFC 8881 leaves it to each client).
CB_PROGRAM=1073741824
LIMIT_S=60

fail() {
    echo "capture: $*" >&2
    exit 1
}

if ((EUID != 0)); then
    echo "skipped: needs root, to capture packets"
    exit 77
fi
for tool in tcpdump tshark jq perl awk; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: needs $tool"
        exit 77
    fi
done

STORM=${1-}
if [[ -z $STORM ]]; then
    cargo build --release --bin storm
    STORM=${CARGO_TARGET_DIR:-target}/release/storm
fi

started=()
folder=$(mktemp -d)
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    if [[ -n ${KEEP-} ]]; then mkdir -p "$KEEP" && cp "$folder"/* "$KEEP"/; fi
    rm -rf "$folder"
}
trap finish EXIT

# wait_for WHAT COMMAND...: until the command succeeds.
wait_for() {
    local what=$1 until=$((SECONDS + LIMIT_S))
    shift
    until "$@"; do
        ((SECONDS < until)) || fail "no $what after $LIMIT_S s"
        sleep 0.1
    done
}

listens() {
    grep -qi ":$(printf '%04X' "$PORT") 00000000:0000 0A" /proc/net/tcp
}

# --- record --------------------------------------------------------------------------------------------------------

if listens; then fail "port $PORT is in use: set PORT"; fi
# As root, because tcpdump would otherwise not be allowed to write here.
tcpdump -i lo -s 0 -U -B 16384 -Z root -w "$folder/storm.pcap" "tcp port $PORT" 2>"$folder/tcpdump.log" &
tcpdump=$!
started+=("$tcpdump")
wait_for "capture" grep -qs 'listening on' "$folder/tcpdump.log"

timeout "$LIMIT_S" "$STORM" --listen "127.0.0.1:$PORT" --backend "$BACKEND" --delegations "$DELEGATIONS" \
    --clients "$CLIENTS" --json "$folder/server.json" >"$folder/server.log" 2>&1 &
server=$!
started+=("$server")
wait_for "server half" listens
timeout "$LIMIT_S" "$STORM" --connect "127.0.0.1:$PORT" --trigger none --delegations "$DELEGATIONS" \
    --clients "$CLIENTS" --cb-operations "$CB_OPERATIONS" --json "$folder/swarm.json" >"$folder/swarm.log" 2>&1 ||
    { cat "$folder/swarm.log" >&2; fail "the swarm half failed"; }
wait "$server" || { cat "$folder/server.log" >&2; fail "the server half failed"; }

# The kernel hands packets over with a delay.
sleep 1
kill -INT "$tcpdump"
wait "$tcpdump" || fail "tcpdump failed: $(cat "$folder/tcpdump.log")"
started=()
grep -q '^0 packets dropped by kernel' "$folder/tcpdump.log" || fail "packets were dropped: $(cat "$folder/tcpdump.log")"

# --- decode --------------------------------------------------------------------------------------------------------

# Each client of the swarm has chosen a program number of its own in the transient range (RFC 5531 section 8.4), and the version
# of tshark at hand knows one: in the copy that it reads, the numbers in call headers are replaced by that one.
perl -0777 -pe 's/(\x00{7}\x02)[\x40-\x5f]...(\x00{3}\x01\x00{3}[\x00\x01])/$1\x40\x00\x00\x00$2/gs' \
    "$folder/storm.pcap" >"$folder/decode.pcap"
decode() {
    tshark -r "$folder/decode.pcap" -2 -d "tcp.port==$PORT,rpc" "$@" 2>>"$folder/tshark.log"
}

# A comparison with `>` holds if it does for any RPC of the frame; with `!=` it would have to for all.
bad=$(decode -Y '_ws.malformed || _ws.expert.severity == "Error" || rpc.continuation_data || rpc.dup ||
    rpc.state_accept > 0 || rpc.replystat > 0 || nfs.nfsstat4 > 0 || tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment')
[[ -z $bad ]] || fail "not well formed, or the capture is not complete:"$'\n'"$(head -n 10 <<<"$bad" | cut -c 1-300)"

# Several RPCs share a frame: the fields of a frame are lists, in the order of its RPCs.
decode -Y rpc -T fields -E separator=/t -e tcp.stream -e rpc.xid -e rpc.msgtyp -e rpc.program -e nfs.cb.operation \
    -e rpc.procedure >"$folder/rpcs"
summary=$(awk -F '\t' -v program="$CB_PROGRAM" '
    {
        n = split($2, xid, ","); m = split($3, type, ","); p = split($4, prog, ",")
        if (n != m || n != p) { print "the lists of a frame differ in length: " $0; wrong = 1; exit }
        for (i = 1; i <= n; i++) {
            if (prog[i] != program) { fore++; continue }
            key = $1 " " xid[i]
            if (type[i] == 0) { calls++; if (called[key]++) doubled++ } else { replies++; if (!called[key] || answered[key]++) stray++ }
        }
        k = split($5, op, ",")
        for (i = 1; i <= k; i++) ops[op[i]]++
    }
    END {
        if (wrong) exit
        for (key in called) if (!answered[key]) unanswered++
        for (o in ops) if (o != 11 && o != 4) other += ops[o]
        printf "calls=%d replies=%d doubled=%d stray=%d unanswered=%d sequence=%d recall=%d other=%d fore=%d\n",
            calls, replies, doubled, stray, unanswered, ops[11], ops[4], other, fore
    }' "$folder/rpcs")

# --- compare -------------------------------------------------------------------------------------------------------

received=$(jq -r .swarm.received "$folder/swarm.json")
completed=$(jq -r .completed "$folder/server.json")
answered=$(jq -r .outcomes.ok "$folder/server.json")
n=$DELEGATIONS
[[ $received == "$n" && $completed == "$n" && $answered == "$n" ]] ||
    fail "of $n recalls the swarm received $received; the runtime completed $completed, $answered with NFS4_OK"
calls=$(jq -r .swarm.callbacks "$folder/swarm.json")
if ((CB_OPERATIONS == 2 ? calls != n : calls >= n)); then fail "$calls calls of up to $CB_OPERATIONS operations for $n recalls"; fi
want="calls=$calls replies=$calls doubled=0 stray=0 unanswered=0 sequence=$((2 * calls)) recall=$((2 * n)) other=0 fore="
[[ $summary == "$want"* ]] || fail "tshark sees"$'\n'"  $summary"$'\n'"instead of"$'\n'"  $want..."
echo "capture: $calls calls of CB_SEQUENCE and CB_RECALL, $n recalls, each answered once; ${summary##*fore=} RPCs on the fore channel;"
echo "capture: nothing malformed, by $(tshark --version 2>/dev/null | head -n 1)"
