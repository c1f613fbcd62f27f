//! Measures the CPU time of a reconcile. All reconciles share one thread, so a long reconcile delays all others.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The most CPU time that a reconcile should use.
const MOST: Duration = Duration::from_millis(100);

/// The CPU time that a future has used so far.
#[derive(Clone, Default)]
pub(super) struct CpuTime(Arc<AtomicU64>);

impl CpuTime {
    /// Measures the CPU time of a future.
    pub(super) fn of<F: Future>(future: F) -> (impl Future<Output = F::Output>, Self) {
        let cpu_time = Self::default();
        (Counted { future: Box::pin(future), cpu_time: cpu_time.clone() }, cpu_time)
    }

    /// The CPU time, if it was more than a reconcile should use.
    pub(super) fn too_much(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.0.load(Ordering::Relaxed))).filter(|spent| *spent > MOST)
    }
}

struct Counted<F> {
    future: Pin<Box<F>>,
    cpu_time: CpuTime,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let before = on_processor();
        let result = self.future.as_mut().poll(context);
        let spent = on_processor().saturating_sub(before);
        self.cpu_time.0.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }
}

/// The CPU time of this thread. The CPU time of other threads and processes does not count.
fn on_processor() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_counts_is_work_and_not_waiting() {
        let (reconcile, cpu_time) = CpuTime::of(tokio::time::sleep(2 * MOST));
        reconcile.await;
        assert_eq!(cpu_time.too_much(), None);
        let (reconcile, cpu_time) = CpuTime::of(async {
            let begun = on_processor();
            while on_processor() < begun + 2 * MOST {
                std::hint::spin_loop();
            }
        });
        reconcile.await;
        assert!(cpu_time.too_much().is_some_and(|spent| spent >= 2 * MOST));
    }
}
