//! A seeded tree of generators.

use alloc::string::String;

use rand_core::{Rng as _, SeedableRng};
use rand_xoshiro::Xoshiro256StarStar;

/// A deterministic generator for uids, generated names, jitter and tie-breaks; never for keys or tokens (see
/// [`Entropy`](super::Entropy)).
///
/// A child depends on its parent's seed and its own label alone, so that one more draw in one place does not
/// shift what another place draws.
///
/// ```
/// use icp_core::base::Rng;
/// let root = Rng::new(7);
/// let (mut a, mut again) = (root.child("uids"), Rng::new(7).child("uids"));
/// assert_eq!(a.uuid(), again.uuid());
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    state: Xoshiro256StarStar,
}

/// The alphabet of generated names: no vowels and no digits that look like letters
/// (`k8s.io/apimachinery/pkg/util/rand`).
const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

impl Rng {
    /// The root of a tree of generators.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: Xoshiro256StarStar::seed_from_u64(seed) }
    }

    /// The generator that stands under `label`.
    #[must_use]
    pub fn child(&self, label: &str) -> Self {
        let mut hash = self.seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in label.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        Self::new(hash)
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state.next_u64()
    }

    /// A uniform number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform fraction in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in `per_million` of a million draws.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// A version-4 UUID in its usual text form (RFC 9562).
    pub fn uuid(&mut self) -> String {
        let (hi, lo) = (self.next_u64(), self.next_u64());
        let hi = (hi & !0xf000) | 0x4000;
        let lo = (lo & !(0b11 << 62)) | (0b10 << 62);
        alloc::format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            hi >> 32,
            (hi >> 16) & 0xffff,
            hi & 0xffff,
            lo >> 48,
            lo & 0xffff_ffff_ffff
        )
    }

    /// A suffix of `len` characters as `generateName` appends.
    pub fn name_suffix(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(*NAME_ALPHABET.get(self.below(27) as usize).unwrap_or(&b'x'))).collect()
    }
}
