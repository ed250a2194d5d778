//! Times of scheduled collections.

use uuid::Uuid;

/// Returns the next collection time of a server after `after_ms`, in Unix milliseconds.
///
/// Each server has a fixed phase within its interval, derived from its id. The collections of all
/// servers are spread over the interval, also after a restart.
pub fn next_run_ms(server: Uuid, interval_ms: i64, after_ms: i64) -> i64 {
    let interval_ms = interval_ms.max(1_000);
    // The random part of a UUIDv7 (RFC 9562, 5.7).
    let random = i64::from_be_bytes(server.as_bytes()[8..].try_into().unwrap_or_default()) & i64::MAX;
    let phase_ms = random % interval_ms;
    phase_ms + ((after_ms - phase_ms).div_euclid(interval_ms) + 1) * interval_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_is_spread_over_the_interval() {
        let now_ms = 1_795_255_200_123;
        let servers: Vec<Uuid> = (0..1_000).map(|_| Uuid::now_v7()).collect();
        let mut tenths = [0_usize; 10];
        for server in servers {
            let first_ms = next_run_ms(server, 60_000, now_ms);
            assert!(first_ms > now_ms && first_ms <= now_ms + 60_000);
            // Constant until that time, then one interval later.
            assert_eq!(next_run_ms(server, 60_000, first_ms - 1), first_ms);
            assert_eq!(next_run_ms(server, 60_000, first_ms), first_ms + 60_000);
            tenths[usize::try_from((first_ms - now_ms - 1) / 6_000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }
}
