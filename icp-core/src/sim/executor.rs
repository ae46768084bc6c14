//! Conversations in event order.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::task::Wake;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, PoisonError};

/// Names a task of one [`Executor`].
pub type TaskId = u64;

#[derive(Default)]
struct Ready(Mutex<VecDeque<TaskId>>);

impl Ready {
    fn push(&self, id: TaskId) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.contains(&id) {
            queue.push_back(id);
        }
    }

    fn pop(&self) -> Option<TaskId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

struct TaskWaker {
    id: TaskId,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.id);
    }
}

type Task = (Pin<Box<dyn Future<Output = ()> + Send>>, Waker);

/// Polls futures in the order in which they were woken, in one thread. Dropping it drops them where they stand.
///
/// ```
/// use icp_core::sim::Executor;
/// use std::sync::{Arc, Mutex};
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let mut executor = Executor::default();
/// for name in ["a", "b"] {
///     let seen = seen.clone();
///     executor.spawn(async move { seen.lock().unwrap().push(name) });
/// }
/// executor.run(|_| {});
/// assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
/// assert!(executor.is_empty());
/// ```
#[derive(Default)]
pub struct Executor {
    tasks: BTreeMap<TaskId, Task>,
    ready: Arc<Ready>,
    next: TaskId,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// Most polls of one run, against futures that wake each other for ever.
const POLLS_MAX: usize = 1_000_000;

impl Executor {
    /// Adds a future; it is polled by the next [`Executor::run`].
    pub fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) -> TaskId {
        self.next += 1;
        let id = self.next;
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: self.ready.clone() }));
        self.tasks.insert(id, (Box::pin(future), waker));
        self.ready.push(id);
        id
    }

    /// Drops a future where it stands.
    pub fn cancel(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Polls all futures that were woken until none is, and says how many polls that took. `before` is told each
    /// time who is polled next.
    pub fn run(&mut self, mut before: impl FnMut(TaskId)) -> usize {
        let mut polls = 0;
        while polls < POLLS_MAX {
            let Some(id) = self.ready.pop() else { break };
            let Some((future, waker)) = self.tasks.get_mut(&id) else { continue };
            before(id);
            polls += 1;
            if let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                self.tasks.remove(&id);
            }
        }
        polls
    }

    /// How many futures have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether all futures have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}
