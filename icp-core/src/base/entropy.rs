//! The port for secrets: keys, tokens, nonces.

use super::Rng;

/// Where keys, tokens and nonces come from: the operating system's generator in production, a seeded one in
/// tests and in the simulator.
pub trait Entropy: Send {
    /// Fills `bytes` with unpredictable bits.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A predictable [`Entropy`] for tests and the simulator.
#[derive(Clone, Debug)]
pub struct SeededEntropy(Rng);

impl SeededEntropy {
    /// An entropy source that yields the same bytes for the same generator.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self(rng)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.0.next_u64().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(word) {
                *to = from;
            }
        }
    }
}
