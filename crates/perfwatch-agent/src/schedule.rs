//! Fixed-phase tick schedule. Ticks have a fixed phase on the monotonic clock, so that a late tick
//! does not shift the next ticks; missed ticks are skipped, never bunched.

use std::time::Duration;

/// Computes the first tick after `now`: `phase` plus a whole number of intervals.
pub(crate) fn next_tick(now: Duration, interval: Duration, phase: Duration) -> Duration {
    let interval_ns = interval.as_nanos().max(1);
    let phase_ns = phase.as_nanos() % interval_ns;
    let now_ns = now.as_nanos();
    let since_phase_ns = now_ns.saturating_sub(phase_ns);
    let next_ns = if now_ns < phase_ns {
        phase_ns
    } else {
        phase_ns + (since_phase_ns / interval_ns + 1) * interval_ns
    };
    Duration::from_nanos(u64::try_from(next_ns).unwrap_or(u64::MAX))
}

/// Phase of a host, derived from its id, so that many agents do not send at the same moment.
pub(crate) fn host_phase(host: perfwatch_model::HostId, interval: Duration) -> Duration {
    let hash = crc32fast::hash(host.0.as_bytes());
    interval.mul_f64(f64::from(hash) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_keep_their_phase() {
        let ms = Duration::from_millis;
        for (now, interval, phase, next) in [
            (0, 2000, 300, 300),
            (299, 2000, 300, 300),
            (300, 2000, 300, 2300),
            (2301, 2000, 300, 4300),
            // Three ticks were missed: one tick follows, not four at once.
            (9999, 2000, 300, 10300),
            (5, 1000, 2300, 300),
        ] {
            assert_eq!(next_tick(ms(now), ms(interval), ms(phase)), ms(next), "{now}");
        }
    }

    proptest! {
        #[test]
        fn next_tick_is_within_one_interval(now in 0u64..1 << 50, interval in 1u64..1 << 40, phase in 0u64..1 << 41) {
            let (now, interval) = (Duration::from_nanos(now), Duration::from_nanos(interval));
            let next = next_tick(now, interval, Duration::from_nanos(phase));
            prop_assert!(next > now && next - now <= interval);
        }
    }
}
