//! How one host takes part.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use icp_core::base::Duration;

use super::VipError;

/// How long a backup waits for advertisements before it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadTime {
    /// `dead_ratio * advbase + advskew / 256` seconds, as UCarp computes it: with `advbase` 0 one late packet flips
    /// the owner.
    Ucarp,
    /// `dead_ratio * (advbase + advskew / 256)` seconds: safe for intervals below a second.
    Scaled,
}

/// How one host takes part in sharing an address.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VipConfig {
    /// Virtual host id, 1 to 255: the same on all hosts that share the address.
    pub vhid: u8,
    /// The shared address.
    pub vip: Ipv4Addr,
    /// This host's own address, the source of its advertisements.
    pub source: Ipv4Addr,
    /// This host's hardware address.
    pub mac: [u8; 6],
    /// Base of the advertisement interval, in seconds.
    pub advbase_secs: u8,
    /// What is added to the interval, in 1/256 seconds; the smallest sum wins.
    pub advskew: u8,
    /// Missed intervals before a backup takes over.
    pub dead_ratio: u8,
    /// How the missed intervals are counted.
    pub dead_time: DeadTime,
    /// Take over from a slower owner instead of waiting for its end.
    pub preempt: bool,
    /// Refuse advertisements whose counter is not above the last one of the same source. Real UCarp peers start
    /// with a new random counter, so that with them this must stay off.
    pub reject_replays: bool,
    key: [u8; 20],
}

impl core::fmt::Debug for VipConfig {
    /// Leaves the password out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VipConfig")
            .field("vhid", &self.vhid)
            .field("vip", &self.vip)
            .field("source", &self.source)
            .field("advbase_secs", &self.advbase_secs)
            .field("advskew", &self.advskew)
            .finish_non_exhaustive()
    }
}

impl VipConfig {
    /// UCarp's defaults: one second, dead ratio 3, no skew, no preemption.
    ///
    /// # Errors
    /// [`VipError::Vhid`] and [`VipError::Password`].
    pub fn new(
        vhid: u8,
        password: &str,
        vip: Ipv4Addr,
        source: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<Self, VipError> {
        let bytes = password.len();
        if vhid == 0 {
            return Err(VipError::Vhid);
        }
        if bytes == 0 || bytes > 19 {
            return Err(VipError::Password { bytes });
        }
        let padded: Vec<u8> = password.bytes().chain(core::iter::repeat(0)).take(20).collect();
        let mut key = [0; 20];
        key.copy_from_slice(&padded);
        Ok(Self {
            vhid,
            vip,
            source,
            mac,
            advbase_secs: 1,
            advskew: 0,
            dead_ratio: 3,
            dead_time: DeadTime::Ucarp,
            preempt: false,
            reject_replays: false,
            key,
        })
    }

    /// Checks the fields that [`VipConfig::new`] does not set.
    ///
    /// # Errors
    /// [`VipError::Interval`] and [`VipError::DeadRatio`].
    pub fn check(&self) -> Result<(), VipError> {
        match (self.advbase_secs, self.advskew, self.dead_ratio) {
            (0, 0, _) => Err(VipError::Interval),
            (_, _, 0) => Err(VipError::DeadRatio),
            _ => Ok(()),
        }
    }

    /// The password, padded with zeros.
    pub(super) const fn key(&self) -> &[u8; 20] {
        &self.key
    }

    /// The pause between two advertisements with `skew`.
    pub(super) fn interval(&self, skew: u8) -> Duration {
        interval(self.advbase_secs, skew)
    }

    /// The silence after which the owner counts as dead.
    pub(super) fn dead_after(&self, skew: u8) -> Duration {
        let ratio = u32::from(self.dead_ratio);
        match self.dead_time {
            DeadTime::Ucarp => interval(self.advbase_secs, 0) * ratio + interval(0, skew),
            DeadTime::Scaled => interval(self.advbase_secs, skew) * ratio,
        }
    }
}

/// `base` seconds and `skew` 1/256 seconds.
pub(super) fn interval(base: u8, skew: u8) -> Duration {
    Duration::from_secs(base.into()) + Duration::from_micros(u64::from(skew) * 1_000_000 / 256)
}
