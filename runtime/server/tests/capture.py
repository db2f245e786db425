"""Decodes the callbacks of a capture with the XDR of pynfs: each call and each reply to the last byte.

capture.py PCAP PORT CHECKOUT     PORT: the server's; CHECKOUT: a clone of pynfs that has been built
"""

import struct
import subprocess
import sys
from collections import Counter, defaultdict

pcap, port, checkout = sys.argv[1:]
sys.path.insert(0, checkout + "/nfs4.1")
from xdrdef import nfs4_const as const
from xdrdef.nfs4_pack import NFS4Unpacker

# What the bits of a notification stand for.
VALUES = {
    const.OP_CB_NOTIFY: ["attr4", "attr4", "remove4", "add4", "rename4", "verifier4"],
    const.OP_CB_NOTIFY_DEVICEID: [None, "deviceid_change4", "deviceid_delete4"],
}


def streams():
    """The bytes of each direction of each connection, those of the server first."""
    fields = [arg for name in ("tcp.stream", "tcp.srcport", "tcp.payload") for arg in ("-e", name)]
    lines = subprocess.run(["tshark", "-r", pcap, "-T", "fields", *fields], capture_output=True, text=True, check=True)
    found = defaultdict(bytearray)
    for line in lines.stdout.splitlines():
        stream, source, payload = line.split("\t")
        found[stream, source] += bytes.fromhex(payload)
    return sorted(found.items(), key=lambda item: item[0][1] != port)


def records(data):
    while data:
        length = struct.unpack_from(">I", data)[0] & 0x7FFFFFFF
        yield bytes(data[4 : 4 + length])
        data = data[4 + length :]


def behind_opaque(data, at):
    return at + 4 + (struct.unpack_from(">I", data, at)[0] + 3) // 4 * 4


def whole(data, name):
    unpacker = NFS4Unpacker(data)
    value = getattr(unpacker, "unpack_" + name)()
    unpacker.done()
    return value


def decode_notifications(operation):
    """What a notification carries is opaque to the compound."""
    changes = getattr(operation, "opcbnotify", None) or operation.opcbnotify_deviceid
    for change in getattr(changes, "cna_changes", None) or changes.cnda_changes:
        unpacker = NFS4Unpacker(change.notify_vals)
        for bit in (32 * n + bit for n, word in enumerate(change.notify_mask) for bit in range(32) if word >> bit & 1):
            getattr(unpacker, "unpack_notify_" + VALUES[operation.argop][bit])()
        unpacker.done()


called, answered, calls = Counter(), Counter(), set()
for (stream, source), data in streams():
    for record in records(data):
        xid, kind = struct.unpack_from(">II", record)
        if kind == 0 and source == port and struct.unpack_from(">I", record, 20)[0] == 1:
            calls.add((stream, xid))
            # Behind the credential and the verifier.
            args = record[behind_opaque(record, behind_opaque(record, 28) + 4) :]
            for operation in whole(args, "CB_COMPOUND4args").argarray:
                called[const.nfs_cb_opnum4[operation.argop]] += 1
                if operation.argop in VALUES:
                    decode_notifications(operation)
        elif kind == 1 and (stream, xid) in calls:
            # Behind the verifier and accept_stat.
            for operation in whole(record[behind_opaque(record, 16) + 4 :], "CB_COMPOUND4res").resarray:
                answered[const.nfs_cb_opnum4[operation.resop]] += 1
everything = {name for number, name in const.nfs_cb_opnum4.items() if number != const.OP_CB_ILLEGAL}
missing = everything - called.keys() | everything - answered.keys()
if missing:
    sys.exit(f"not in the capture: {sorted(missing)}")
print(f"capture: all {len(everything)} decoded by the XDR of pynfs, {sum(called.values())} operations and {sum(answered.values())} results")
