//! What is not done once everything is warm.

use super::*;
use allocation_counter::measure;

/// Rule R7: neither the thread that asks nor the reactor takes memory for a callback. Staging buffers and the records of
/// what is owed are those of the callbacks before, or of the first ones.
#[test]
fn r7_neither_a_request_nor_a_turn_allocates() {
    for backend in [Backend::Epoll, Backend::Uring] {
        let Some(mut stage) = Stage::new(backend, 16, Failures::new(|_| false)) else { continue };
        let keys = stage.insert(0..300);
        stage.hooks.quiet.store(true, SeqCst);
        for round in 0..4 {
            let asked = measure(|| stage.submit(&keys)).count_total;
            let (mut turns, mut turned) = (0, 0);
            while stage.in_flight() > 0 {
                turned += measure(|| stage.reactor.turn().expect("a turn")).count_total;
                turns += 1;
                stage.client.step();
            }
            assert!(turns > 300 / 16, "{turns} turns");
            assert_eq!(asked, 0, "{backend:?}");
            assert_eq!(turned > 0, round == 0, "{backend:?}: {turned} allocations in {turns} turns of round {round}");
        }
    }
}
