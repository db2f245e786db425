# In: what a storm wrote with --json (slurped). Out: what is wrong with it, nothing if nothing is.
# $backend: which back end must have run, or "any".
if length != 1 then "\(length) JSON values instead of one" else
  .[0] as $r
  | [ ["ok is not true: \($r.discrepancies)", $r.ok == true],
      ["accepted \($r.accepted) of \($r.delegations)", $r.accepted == $r.delegations],
      ["completed \($r.completed) of \($r.accepted)", $r.completed == $r.accepted],
      ["released \($r.released) of \($r.accepted)", $r.released == $r.accepted],
      ["in_flight \($r.in_flight)", $r.in_flight == 0],
      ["slots_leaked \($r.slots_leaked)", $r.slots_leaked == 0],
      ["abandoned \($r.abandoned), unsent \($r.unsent)",
        $r.abandoned + $r.unsent == 0 or $r.options.dead_clients + $r.options.delay_clients > 0],
      ["the swarm was granted \($r.swarm.granted) of \($r.delegations)", $r.swarm.granted == $r.delegations],
      ["the swarm was recalled twice: \($r.swarm.doubled)", $r.swarm.doubled == 0],
      ["the swarm got \($r.swarm.malformed) malformed records", $r.swarm.malformed == 0],
      ["live clients missed \($r.swarm.missed_live) recalls", $r.swarm.missed_live == 0],
      ["the swarm received \($r.swarm.recalled) recalls, \($r.outcomes.ok) were answered",
        $r.swarm.recalled >= $r.outcomes.ok],
      ["latency p50 <= p99 <= p999 <= max does not hold: \($r.latency_us)",
        ($r.latency_us | .p50 <= .p99 and .p99 <= .p999 and .p999 <= .max)],
      ["back end \($r.backend) instead of \($backend)", $backend == "any" or $r.backend == $backend]
    ]
  | map(select(.[1] != true) | .[0]) | join("; ")
end
