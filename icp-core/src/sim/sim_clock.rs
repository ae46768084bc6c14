//! The clock port of conversations.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::Time;
use crate::server::Clock;

#[derive(Debug, Default)]
struct State {
    now: Time,
    alarms: BTreeMap<(Time, u64), Waker>,
    next: u64,
}

/// A clock that its host sets; clones share it.
///
/// ```
/// use icp_core::base::Time;
/// use icp_core::server::Clock as _;
/// use icp_core::sim::{Executor, SimClock};
/// let (clock, mut executor) = (SimClock::default(), Executor::default());
/// executor.spawn(clock.sleep_until(Time::from_secs(5)));
/// executor.run(|_| {});
/// assert_eq!(clock.deadline(), Some(Time::from_secs(5)));
/// clock.set(Time::from_secs(5));
/// executor.run(|_| {});
/// assert!(executor.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<Mutex<State>>);

impl SimClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time, which never goes back, and rings the alarms that are due.
    pub fn set(&self, now: Time) {
        let mut due: Vec<Waker> = Vec::new();
        {
            let mut state = self.state();
            state.now = state.now.max(now);
            let now = state.now;
            while let Some(first) = state.alarms.first_entry().filter(|e| e.key().0 <= now) {
                due.push(first.remove());
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// When the next alarm rings.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.state().alarms.first_key_value().map(|((at, _), _)| *at)
    }
}

struct Sleep {
    clock: SimClock,
    due: Time,
    key: Option<(Time, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut state = clock.state();
        if state.now >= self.due {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            state.next += 1;
            (self.due, state.next)
        });
        self.key = Some(key);
        state.alarms.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.state().alarms.remove(&key);
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        self.state().now
    }

    fn sleep_until(&self, due: Time) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Sleep { clock: self.clone(), due, key: None })
    }
}
