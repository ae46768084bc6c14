//! What can be chosen of a store.

use crate::mvcc::Limits;

/// Settings of a [`Store`](super::Store); the defaults are etcd's where etcd has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bounds of a transaction.
    pub limits: Limits,
    /// How many events a watcher may fall behind before it is cut.
    pub watch_lag_events_max: usize,
    /// How often the watches that were begun with `progress_notify` are told how far they are without a request, in
    /// seconds; 0 for never. As etcd's `--experimental-watch-progress-notify-interval`.
    pub watch_progress_interval_secs: i64,
    /// Shortest time to live of a lease, in seconds; etcd's follows from its election timeout.
    pub lease_ttl_secs_min: i64,
    /// How often what is left of a lease is logged that lives longer without a renewal, in seconds; 0 for never. As
    /// etcd with `--experimental-enable-lease-checkpoint-persist`.
    pub lease_checkpoint_interval_secs: i64,
    /// Most commits that are freed of compacted versions with each write and each wake.
    pub sweep_commits_max: usize,
    /// Bytes of keys and values of all kept versions above which a request that adds data is refused and raises the
    /// alarm [`AlarmKind::NoSpace`](icp_core::storage::AlarmKind::NoSpace); 0 for no bound. etcd's counterpart,
    /// `--quota-backend-bytes`, bounds its file.
    pub quota_bytes: u64,
    /// Seeds the ids of leases that are granted without one.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            watch_lag_events_max: 100_000,
            watch_progress_interval_secs: 600,
            lease_ttl_secs_min: 2,
            lease_checkpoint_interval_secs: 300,
            sweep_commits_max: 1_000,
            quota_bytes: 0,
            seed: 0,
        }
    }
}
