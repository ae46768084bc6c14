//! A watch that outlives its connection, over the streams of either client.
#![expect(clippy::disallowed_methods, reason = "a shell: it waits before it connects again")]

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::future::Future;

use icp_core::base::{Backoff, Duration};
use icp_core::storage::{Event, Revision, StorageError, WatchRequest, WatchResponse, WatchStream};

use super::resume::Resume;

/// First pause before a watch is opened again.
const RETRY_INITIAL: Duration = Duration::from_millis(50);

/// What the server sent on a watch.
pub(super) struct Response {
    /// The revision of the header.
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
    /// Whether other parts of the same response follow.
    pub(super) more: bool,
}

/// A client's way to one watch: one stream at a time.
pub(super) trait Stream: Send + 'static {
    /// Opens a stream in the place of the last one, and waits until the server has the watch: its revision then.
    fn open(
        &mut self,
        request: &WatchRequest,
        start: Revision,
    ) -> impl Future<Output = Result<Revision, StorageError>> + Send;

    /// The next response; nothing if the stream has ended. An error ends the watch.
    fn response(&mut self) -> impl Future<Output = Result<Option<Response>, StorageError>> + Send;
}

struct Watch<S> {
    stream: S,
    request: WatchRequest,
    resume: Resume,
    is_open: bool,
    timeout: Duration,
    backoff: Backoff,
}

/// Begins a watch, and waits until the server has it; each opening may take `timeout`, and the pauses between them grow
/// to `retry_max`.
pub(super) async fn begin(
    stream: impl Stream,
    request: WatchRequest,
    timeout: Duration,
    retry_max: Duration,
) -> Result<WatchStream, StorageError> {
    let mut watch = Watch {
        stream,
        resume: Resume::new(&request),
        request,
        is_open: false,
        timeout,
        backoff: Backoff::new(RETRY_INITIAL, retry_max),
    };
    watch.open().await?;
    let batches = futures_util::stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.batch().await {
            Ok(batch) => Some((Ok(batch), Some(watch))),
            Err(e) => Some((Err(e), None)),
        }
    });
    Ok(Box::pin(batches))
}

impl<S: Stream> Watch<S> {
    async fn open(&mut self) -> Result<(), StorageError> {
        let opened = self.stream.open(&self.request, self.resume.start_revision());
        let Ok(opened) = tokio::time::timeout(self.timeout, opened).await else {
            let detail = format!("no watch was created in {:?}", self.timeout);
            return Err(StorageError::Unavailable { detail });
        };
        self.resume.created(opened?);
        self.is_open = true;
        Ok(())
    }

    /// The next batch; connects again as often as that takes.
    async fn batch(&mut self) -> Result<WatchResponse, StorageError> {
        loop {
            if !self.is_open {
                tokio::time::sleep(self.backoff.next_delay()).await;
                match self.open().await {
                    Ok(()) => {}
                    Err(StorageError::Unavailable { .. }) => continue,
                    Err(e) => return Err(e),
                }
            }
            let Some(response) = self.stream.response().await? else {
                self.is_open = false;
                continue;
            };
            self.backoff.reset();
            if let Some(batch) = self.resume.take(response.revision, response.events, response.more) {
                return Ok(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::sync::Arc;
    use std::sync::Mutex;

    use futures_util::StreamExt as _;
    use icp_core::storage::KeyRange;

    use super::*;

    /// What happens at the next opening.
    enum Opening {
        /// No answer, ever.
        Silent,
        Refused,
        /// It is open, and tells of progress at these revisions before it ends.
        Open(Vec<Revision>),
    }

    struct Scripted {
        openings: VecDeque<Opening>,
        left: VecDeque<Revision>,
        starts: Arc<Mutex<Vec<Revision>>>,
    }

    impl Stream for Scripted {
        async fn open(&mut self, _: &WatchRequest, start: Revision) -> Result<Revision, StorageError> {
            self.starts.lock().unwrap().push(start);
            match self.openings.pop_front() {
                Some(Opening::Open(revisions)) => self.left = revisions.into(),
                Some(Opening::Refused) => {
                    return Err(StorageError::Unavailable { detail: "refused".into() });
                }
                Some(Opening::Silent) => core::future::pending().await,
                None => return Err(StorageError::Compacted { compacted: 9 }),
            }
            Ok(5)
        }

        async fn response(&mut self) -> Result<Option<Response>, StorageError> {
            Ok(self.left.pop_front().map(|revision| Response { revision, events: Vec::new(), more: false }))
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_asked_again() {
        use Opening::{Open, Refused, Silent};
        let starts = Arc::default();
        let openings = [Open([6].into()), Silent, Refused, Open([8].into()), Silent];
        let stream =
            Scripted { openings: openings.into(), left: VecDeque::new(), starts: Arc::clone(&starts) };
        let request = WatchRequest { progress_notify: true, ..WatchRequest::new(KeyRange::key("k"), 0) };
        let millis = Duration::from_millis;
        let watch = begin(stream, request, millis(10), millis(1)).await.unwrap();
        let told = watch.map(|batch| batch.map(|b| b.revision)).collect::<Vec<_>>();
        let told = tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
        assert_eq!(told, [Ok(6), Ok(8), Err(StorageError::Compacted { compacted: 9 })]);
        assert_eq!(*starts.lock().unwrap(), [0, 7, 7, 7, 9, 9]);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_at_first_is_told_at_once() {
        let stream =
            Scripted { openings: [Opening::Silent].into(), left: VecDeque::new(), starts: Arc::default() };
        let request = WatchRequest::new(KeyRange::key("k"), 0);
        let millis = Duration::from_millis;
        let error = begin(stream, request, millis(10), millis(1)).await.err();
        assert_eq!(error, Some(StorageError::Unavailable { detail: "no watch was created in 10ms".into() }));
    }
}
