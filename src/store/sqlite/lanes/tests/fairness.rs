//! Turns are shared.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

proptest! {
    /// Between two turns of a ready lane, another tenant has at most as many turns as the lane's own tenant has lanes,
    /// and each turn gives at most a quantum; so has another lane of its own tenant one turn.
    #[test]
    fn turns_are_shared_fairly(
        shares in prop::collection::vec(1_usize..5, 1..5),
        rooms in prop::collection::vec(1_usize..40, 1..60),
    ) {
        let mut lanes = Lanes::default();
        let mut owners = BTreeMap::new();
        let mut connection = 0;
        for (owner, share) in shares.iter().enumerate() {
            for _ in 0..*share {
                connection += 1;
                owners.insert(lane(connection), owner);
                let rule = rule(1, &format!("t{owner}"), 2_000);
                lanes.apply(Effect::Rule { connection: lane(connection), rule }, NOW);
                made(&mut lanes, lane(connection), connection * 10_000..connection * 10_000 + 1_000);
            }
        }
        // Turns as they were given; a turn may be cut by the caller's room.
        let mut turns: Vec<(ConnectionId, usize)> = Vec::new();
        for room in rooms {
            // Nobody may run dry, or shares change.
            if turns.iter().map(|(_, count)| count).sum::<usize>() + room > 900 { break }
            let mut left = lanes.lease(room, at(60), NOW).into_iter().map(|l| l.job.connection).peekable();
            while let Some(connection) = left.next() {
                let mut count = 1;
                while count < QUANTUM && left.next_if_eq(&connection).is_some() { count += 1 }
                turns.push((connection, count));
            }
        }
        check(&lanes);
        let many = owners.len() > 1;
        for connection in owners.keys().filter(|_| many) {
            let own = owners[connection];
            let places: Vec<usize> =
                (0..turns.len()).filter(|at| turns[*at].0 == *connection).collect();
            let starts = std::iter::once(0).chain(places.iter().map(|at| at + 1));
            let ends = places.iter().copied().chain([turns.len()]);
            for (start, end) in starts.zip(ends) {
                let mut by_tenant = vec![0; shares.len()];
                for (other, count) in &turns[start..end] {
                    prop_assert!(*count <= QUANTUM);
                    by_tenant[owners[other]] += 1;
                }
                for (owner, count) in by_tenant.iter().enumerate() {
                    let most = if owner == own { shares[own] - 1 } else { shares[own] };
                    prop_assert!(*count <= most, "tenant {} had {} turns between two of {}", owner, count, connection);
                }
            }
        }
    }
}
