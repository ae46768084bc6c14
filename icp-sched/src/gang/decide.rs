//! The decision about a gang.

use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use crate::model::Pod;
use crate::{Placement, Scheduler, Unplaced};

/// A pod of a gang and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The pod.
    pub pod: Pod,
    /// Where it goes.
    pub placement: Placement,
}

/// The pods of a gang that have a place, and those beyond its minimum for which there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    /// Where pods go.
    pub seats: Vec<Seat>,
    /// Pods that find no node, and why.
    pub unplaced: Vec<Unplaced>,
}

/// Why a gang is not placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GangError {
    /// Too few of its pods find a node.
    #[error("{placed} of {min} pods find a node")]
    TooFew {
        /// How many would.
        placed: usize,
        /// How many have to.
        min: usize,
        /// The pods that do not, and why.
        unplaced: Vec<Unplaced>,
    },
    /// A pod is on a node already, or is in the list twice.
    #[error("{0} has a place already")]
    Placed(ObjectKey),
    /// There is no such gang, or it is not complete.
    #[error("no complete gang {0}")]
    Incomplete(ObjectKey),
}

impl Scheduler {
    /// Places pods one after the other, in this order, and holds to it if at least `min` of them find a node; pods beyond
    /// that which find none are told. Otherwise all is as it was before, draws of ties and kept room as well.
    ///
    /// A pod goes where it would go alone: that a gang is refused does not prove that no arrangement of it fits. Nothing
    /// is evicted.
    ///
    /// # Errors
    /// If fewer find a node, or a pod has a place already; nothing has changed then.
    pub fn schedule_gang(
        &mut self,
        pods: impl IntoIterator<Item = Pod>,
        min: usize,
    ) -> Result<Seats, GangError> {
        let ties = self.ties();
        let mut refused = None;
        let mut kept: Vec<(Pod, String)> = Vec::new();
        let (mut seats, mut unplaced): (Vec<Seat>, Vec<Unplaced>) = (Vec::new(), Vec::new());
        let mut fault = None;
        for pod in pods {
            if self.cluster().pod(&pod.key).is_some() {
                fault = Some(GangError::Placed(pod.key));
                break;
            }
            match self.schedule_next(&pod, &mut refused) {
                Ok(placement) => {
                    if let Some(node) = self.nominated_node(&pod.key) {
                        kept.push((pod.clone(), node.into()));
                    }
                    self.assume(pod.clone(), placement.node);
                    seats.push(Seat { pod, placement });
                }
                Err(reason) => unplaced.push(Unplaced { pod: pod.key, reason }),
            }
        }
        if fault.is_none() && seats.len() >= min {
            return Ok(Seats { seats, unplaced });
        }
        for seat in &seats {
            self.forget(&seat.pod.key);
        }
        for (pod, node) in kept {
            self.nominate(pod, &node);
        }
        self.set_ties(ties);
        Err(fault.unwrap_or(GangError::TooFew { placed: seats.len(), min, unplaced }))
    }
}
